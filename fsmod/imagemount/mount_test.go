// SPDX-License-Identifier: Apache-2.0

// Mounts in a namespace, and what programs do there.

package imagemount

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"umrun/fsmod/image"
	"umrun/fsmod/mounttest"
)

// Variables that make this executable the child: it mounts what fd 3 is served at, and
// becomes a shell.
const (
	mountAt  = "IMAGEMOUNT_AT"
	thenDoIt = "IMAGEMOUNT_SCRIPT"
)

func TestMain(m *testing.M) {
	if at := os.Getenv(mountAt); at != "" {
		fmt.Fprintln(os.Stderr, "child:", becomeShell(at))
		os.Exit(125)
	}
	goleak.VerifyTestMain(m)
}

func becomeShell(at string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	tree, dev, err := Connect("test", "a b,c"+strings.Repeat("x", 300))
	if err != nil {
		return err
	}
	if err := Send(os.NewFile(3, "supervisor"), 7, dev); err != nil {
		return err
	}
	dev.Close()
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	unix.Close(tree)
	return unix.Exec("/bin/sh", []string{"sh", "-ec", os.Getenv(thenDoIt)}, os.Environ())
}

// inside runs a script in a namespace in which img is mounted at $AT: as this user, or
// with user as an ordinary one in a user namespace.
func inside(t *testing.T, img, script string, user bool) (string, error) {
	t.Helper()
	fsys, err := image.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := fsys.Close(); err != nil {
			t.Error(err)
		}
	}()
	theirs, c, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	var server *Server
	received := make(chan error, 1)
	go func() {
		received <- Receive(c, func(n int, dev *os.File) (_ *os.File, err error) {
			if n != 7 {
				t.Errorf("image %d", n)
			}
			server, err = Serve(dev, fsys, 4096*5, nil, slog.New(slog.NewTextHandler(t.Output(), nil)))
			return nil, err
		})
	}()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "at")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(context.Background(), 60*time.Second)
	defer stop()
	args := []string{"unshare", "-m", exe}
	if os.Geteuid() != 0 {
		args = []string{"unshare", "-Um", "--map-current-user", "--keep-caps", exe}
	} else if user {
		// A /dev/fuse that everybody may open, as most machines have it.
		node := filepath.Join(t.TempDir(), "fuse")
		if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(node, 0o666); err != nil {
			t.Fatal(err)
		}
		mounttest.Public(t, at)
		args = []string{"unshare", "-m", "sh", "-ec", `mount --bind "$0" /dev/fuse
			exec setpriv --reuid 12345 --regid 12345 --clear-groups unshare -Um --map-current-user --keep-caps "$1"`, node, public(t, exe)}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), mountAt+"="+at, "AT="+at, thenDoIt+"="+script)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	c.Close()
	<-received
	if server != nil {
		if err := server.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if n := len(server.files); n != 0 {
			t.Errorf("%d files are open", n)
		}
	} else {
		if s := errs.String(); strings.Contains(s, "open /dev/fuse: ") || strings.HasPrefix(s, "unshare: ") {
			t.Skipf("no FUSE mount in a namespace here: %s", s)
		}
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), err
}

// public copies a file to where everybody may execute it.
func public(t *testing.T, exe string) string {
	name := filepath.Join(t.TempDir(), "exe")
	src, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	mounttest.Public(t, filepath.Dir(name))
	return name
}

// describeTree is a script that prints all of the directory $AT.
const describeTree = `cd "$AT"
find . -mindepth 1 ! -type d -printf '%p %y %m %s %n %l %Ts\n' -o -printf '%p %y %m\n' | sort
find . -type f | sort | xargs -d '\n' sha256sum
`

// makeTree makes a tree and a squashfs of it.
func makeTree(t *testing.T) (tree, img string) {
	t.Helper()
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		t.Skip("mksquashfs is not installed")
	}
	tree, img = filepath.Join(t.TempDir(), "tree"), filepath.Join(t.TempDir(), "img")
	out, err := exec.Command("sh", "-ec", `mkdir -p "$0/dir/sub" "$0/many" && cd "$0"
		echo hello >file; chmod 640 file; ln file dir/hard; ln -s ../file dir/link
		cp /bin/true dir/program; seq 1 300000 >dir/big; mkfifo fifo
		for i in $(seq 500); do echo $i >many/name-$i; done
		mksquashfs . "$1" -quiet -no-progress -processors 1; chmod 644 "$1"`, tree, img).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return tree, img
}

// both runs a test as this user and, as root, as an ordinary one too.
func both(t *testing.T, f func(t *testing.T, user bool)) {
	t.Run("self", func(t *testing.T) { f(t, false) })
	if os.Geteuid() == 0 {
		t.Run("user", func(t *testing.T) { f(t, true) })
	}
}

func TestMount(t *testing.T) {
	tree, img := makeTree(t)
	cmd := exec.Command("sh", "-ec", describeTree)
	cmd.Env = append(os.Environ(), "AT="+tree)
	want, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	both(t, func(t *testing.T, user bool) {
		got, err := inside(t, img, describeTree, user)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("tree, mount:\n%s", diff)
		}
	})
}

// TestUse does with a mount what programs do.
func TestUse(t *testing.T) {
	_, img := makeTree(t)
	both(t, func(t *testing.T, user bool) {
		got, err := inside(t, img, `cd "$AT"
			dir/program && echo runs
			dd if=dir/big bs=1 skip=1000000 count=7 status=none | tr '\n' ,; echo
			cat dir/link
			for do in 'touch new' 'echo x >file' 'rm file' 'mkdir new' 'chmod 777 dir' 'mv file other' 'ln file new'; do
				sh -c "$do" 2>&1 | grep -o 'Read-only.*'
			done
			ls nowhere 2>&1 | grep -o 'No such.*'
			cat dir 2>&1 | grep -o 'Is a dir.*'
			stat -f -c '%S %b %f' .
			grep "$AT" /proc/self/mounts | cut -d ' ' -f 1,3
			(cat dir/big dir/big dir/big & cat dir/big dir/big dir/big; wait) | wc -c
			`, user)
		if err != nil {
			t.Fatal(err)
		}
		want := "runs\n3333\n166\nhello\n" + strings.Repeat("Read-only file system\n", 7) +
			"No such file or directory\nIs a directory\n4096 5 0\na\\040b,c" + strings.Repeat("x", 250) + " fuse.test\n11933370\n"
		want = strings.Replace(want, "3333\n166", strings.TrimSpace(bigAt(t)), 1)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("want, got:\n%s", diff)
		}
	})
}

// bigAt is what TestUse reads from the middle of the big file.
func bigAt(t *testing.T) string {
	var b bytes.Buffer
	for i := 1; i <= 300000; i++ {
		fmt.Fprintln(&b, i)
	}
	return strings.ReplaceAll(string(b.Bytes()[1000000:1000007]), "\n", ",") + "\n"
}

// TestDamaged reads what is wrong: EIO, and the rest goes on.
func TestDamaged(t *testing.T) {
	_, img := makeTree(t)
	f, err := os.OpenFile(img, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, 3000), 200); err != nil { // data comes first
		t.Fatal(err)
	}
	f.Close()
	got, err := inside(t, img, `cd "$AT"; cat dir/big 2>&1 >/dev/null | grep -o 'Input.*'; ls many | wc -l`, false)
	if err != nil || got != "Input/output error\n500\n" {
		t.Errorf("got %q, %v", got, err)
	}
}
