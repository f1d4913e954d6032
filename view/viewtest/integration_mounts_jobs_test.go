// SPDX-License-Identifier: Apache-2.0

// What people do with mounts: a legacy program whose paths are compiled in, a build and
// an installation that leave the machine as it is, a browser.

package viewtest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"umrun/view/viewtest"
)

// TestIntegrationLegacy: a program finds its files where it was built to, and keeps its
// state, on a machine that has no such place.
func TestIntegrationLegacy(t *testing.T) {
	viewtest.Need(t, "gcc")
	w := viewtest.New(t)
	for _, linking := range []viewtest.Linking{viewtest.Dynamic, viewtest.Static} {
		bin := viewtest.Target(t, "hardwired", linking)
		for _, user := range []bool{false, true} {
			dir := mountTree(t, w, user)
			writeFiles(t, dir, map[string]string{
				"legacy/etc/legacy.conf": "configured\n", "legacy/bin/helper": "#!/bin/sh\necho helped in $PWD\n", "legacy/var/log": "",
			})
			if user {
				give(t, dir)
			}
			if r := w.HostCmd(context.Background(), bin).Result(); r.Status != 1 {
				t.Fatalf("without a view: %v", r)
			}
			for run := range 2 {
				u := umrunAs(t, w, user, "-q", "-n", "none", "-m", "bind:"+dir+"/legacy:/opt/umrun-lab-legacy", "--", bin)
				u.Dir = dir
				u.Env = append(u.Env, "PWD="+dir)
				if r := u.Result(); r.Status != 0 || r.Stdout != fmt.Sprintf("configured\nrun %d\nhelped in %s\n", run+1, dir) {
					t.Errorf("%s: %v", linking, r)
				}
			}
			if _, err := os.Lstat("/opt/umrun-lab-legacy"); err == nil {
				t.Error("/opt/umrun-lab-legacy is on the host")
			}
		}
	}
}

// TestIntegrationCowBuild: a clone, a build and its tests in a view leave the tree as it
// was, to the last time of change.
func TestIntegrationCowBuild(t *testing.T) {
	viewtest.Need(t, "git", "gcc", "make")
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		dir := mountTree(t, w, user)
		project := filepath.Join(dir, "project")
		if err := os.Mkdir(project, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{
			"answer.c": "int answer(void) { return 42; }\n",
			"main.c":   "#include <stdio.h>\nint answer(void);\nint main(void) { return printf(\"%d\\n\", answer()) < 0; }\n",
			"Makefile": "main: main.o answer.o\n\t$(CC) -o $@ $^\ncheck: main\n\t./main | grep -x 42\nclean:\n\trm -f *.o main\n",
		} {
			if err := os.WriteFile(filepath.Join(project, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		git := "git -c init.defaultBranch=main -c user.name=lab -c user.email=lab@example -c safe.directory='*' "
		w.Host.MustRun(t, "sh", "-c", "cd "+project+" && "+git+"init -q && "+git+"add . && "+git+"commit -qm first")
		if user {
			give(t, dir)
		}
		sum := treeSum(t, dir)
		clone := "git clone -q project copy"
		if user { // docs/limits.md: a new link of a file has another number then
			clone = "git clone -q --no-hardlinks project copy"
		}
		script := "set -e; cd " + dir + "; " + clone + "; cd copy; make -s check; make -s clean; echo '/* new */' >>answer.c; " + git + "commit -qam second; git push -q origin HEAD:new; " +
			"cd ../project; git checkout -q new; git mv answer.c reply.c; sed -i s/answer.o/reply.o/ Makefile; make -s check; git status --short | wc -l; rm -rf .git"
		for _, target := range []string{dir, "/"} {
			u := umrunAs(t, w, user, "-q", "-n", "none", "-m", "cow::"+target, "--", "sh", "-c", script)
			if r := u.Result(); r.Status != 0 || !strings.HasPrefix(r.Stdout, "42\n42\n") {
				t.Error(r)
			}
			if got := treeSum(t, dir); got != sum {
				t.Errorf("the real tree has changed (cow of %s)", target)
			}
		}
	}
}

// TestIntegrationCowApt: a package is installed into a view of the whole machine, from a
// repository that the view's network has and the host's has not.
func TestIntegrationCowApt(t *testing.T) {
	viewtest.Need(t, "root", "apt-get", "dpkg-deb")
	w, p, me := lab(t)
	dir, err := os.MkdirTemp(w.Dir(), "apt-")
	if err != nil {
		t.Fatal(err)
	}
	repo := aptRepo(t, w, dir)
	const port = 8086
	ln, err := p.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.FileServer(http.Dir(repo))}
	go srv.Serve(ln) // ends with Close
	defer srv.Close()
	sources := filepath.Join(dir, "sources.list")
	line := fmt.Sprintf("deb [trusted=yes] http://%v:%d/ ./\n", viewtest.PeerIP4, port)
	if err := os.WriteFile(sources, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	status := fileSum(t, "/var/lib/dpkg/status")
	sums := map[string]string{"/etc/apt": treeSum(t, "/etc/apt"), "/var/lib/apt": treeSum(t, "/var/lib/apt")}
	apt := "apt-get -q -o APT::Sandbox::User=root -o Acquire::http::Proxy=DIRECT -o Acquire::Languages=none "
	view := func(script string) viewtest.Result {
		u := w.UmrunFlags(t, "-q", "-n", me.Conf, "-m", "cow:"+dir+"/up:/", "-m", "file:"+sources+":/etc/apt/sources.list",
			"-m", "tmpfs:/etc/apt/sources.list.d", "--", "sh", "-c", script)
		u.Env = append(u.Env, "DEBIAN_FRONTEND=noninteractive", "http_proxy=", "HTTP_PROXY=")
		return u.Result()
	}
	r := view(apt + "update && " + apt + "install -y --no-install-recommends umrun-lab-hello && umrun-lab-hello && dpkg -V umrun-lab-hello")
	if r.Status != 0 || !strings.Contains(r.Stdout, "hello from a package\n") {
		t.Fatal(r)
	}
	for line := range strings.Lines(r.Stdout) {
		if strings.HasPrefix(line, "Get:") && !strings.Contains(line, viewtest.PeerIP4.String()) {
			t.Errorf("apt-get went elsewhere: %s", line)
		}
	}
	// It is there in the next view, can be removed again, and the machine knows nothing.
	if r := view("umrun-lab-hello && " + apt + "purge -y umrun-lab-hello >/dev/null && ! dpkg -s umrun-lab-hello 2>/dev/null"); r.Status != 0 || r.Stdout != "hello from a package\n" {
		t.Error(r)
	}
	if r := w.HostCmd(context.Background(), "dpkg", "-s", "umrun-lab-hello").Result(); r.Status == 0 {
		t.Error("the host has the package", r)
	}
	if fileSum(t, "/var/lib/dpkg/status") != status {
		t.Error("the host's /var/lib/dpkg/status has changed")
	}
	for dir, sum := range sums {
		if treeSum(t, dir) != sum {
			t.Errorf("%s has changed", dir)
		}
	}
	w.NoStrays(t)
}

// aptRepo makes a repository of one package.
func aptRepo(t testing.TB, w *viewtest.World, dir string) string {
	t.Helper()
	repo, root := filepath.Join(dir, "repo"), filepath.Join(dir, "package")
	control := "Package: umrun-lab-hello\nVersion: 1.0\nArchitecture: all\nMaintainer: lab <lab@example>\nDescription: says hello\n"
	for name, content := range map[string]string{
		"package/DEBIAN/control":                 control,
		"package/DEBIAN/postinst":                "#!/bin/sh\nset -e\necho configured >/etc/umrun-lab-hello.state\n",
		"package/DEBIAN/postrm":                  "#!/bin/sh\nrm -f /etc/umrun-lab-hello.state\n",
		"package/usr/bin/umrun-lab-hello":        "#!/bin/sh\ngrep -q configured /etc/umrun-lab-hello.state && cat /usr/share/umrun-lab-hello/text\n",
		"package/usr/share/umrun-lab-hello/text": "hello from a package\n",
		"repo/x":                                 "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o755)
		if strings.HasSuffix(name, "text") || strings.HasSuffix(name, "control") {
			mode = 0o644
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(repo, "umrun-lab-hello_1.0_all.deb")
	w.Host.MustRun(t, "dpkg-deb", "--root-owner-group", "--build", root, deb)
	b, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	packages := fmt.Sprintf("%sFilename: ./%s\nSize: %d\nSHA256: %x\n\n", control, filepath.Base(deb), len(b), sha256.Sum256(b))
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	fmt.Fprint(zw, packages)
	zw.Close()
	release := fmt.Sprintf("Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n %x %d Packages\n %x %d Packages.gz\n",
		sha256.Sum256([]byte(packages)), len(packages), sha256.Sum256(z.Bytes()), z.Len())
	for name, content := range map[string]string{"Packages": packages, "Packages.gz": z.String(), "Release": release} {
		if err := os.WriteFile(filepath.Join(repo, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return repo
}

func fileSum(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// TestIntegrationMountsNetwork: the view's network is the same with mounts.
func TestIntegrationMountsNetwork(t *testing.T) {
	viewtest.Need(t, "curl")
	w, _, me := lab(t)
	for _, user := range []bool{false, true} {
		for _, stack := range []string{"netstack", "kernel"} {
			u := umrunAs(t, w, user, "-q", "-n", me.Conf+",stack="+stack, "-m", "cow::/", "-m", "tmpfs:/var", "--hosts", "web.example="+viewtest.PeerIP4.String(), "--",
				"curl", "-sS", "-m", "20", fmt.Sprintf("http://web.example:%d/addr", viewtest.PortWeb))
			if r := u.Result(); r.Status != 0 || r.Stdout != me.IP4.String()+"\n" {
				t.Errorf("%s: %v", stack, r)
			}
		}
	}
	w.NoStrays(t)
}

// TestIntegrationMountsBrowser: Chromium's own sandbox, which is a user namespace in
// ours with the engine ns, starts for an ordinary user.
func TestIntegrationMountsBrowser(t *testing.T) {
	viewtest.Need(t, "chromium")
	w := viewtest.New(t)
	for _, engine := range []string{"ns", "trap"} {
		for _, mount := range []string{"cow::/", "bind:DIR/src:DIR/dst"} {
			t.Run(engine+"/"+mount, func(t *testing.T) {
				dir := mountTree(t, w, true)
				page := filepath.Join(dir, "page.html")
				if err := os.WriteFile(page, []byte("<p id=x>before</p><script>document.getElementById('x').textContent = 'after ' + 6 * 7</script>"), 0o644); err != nil {
					t.Fatal(err)
				}
				u := umrunAs(t, w, true, "-q", "-n", "none", "--fs-engine", engine, "-m", strings.ReplaceAll(mount, "DIR", dir), "--", "chromium", "--headless", "--disable-gpu", "--no-first-run",
					"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+dir+"/profile", "--dump-dom", "file://"+page)
				if r := u.Result(); r.Status != 0 || !strings.Contains(r.Stdout, "after 42") {
					t.Error(r)
				}
				if _, err := os.Lstat(dir + "/profile"); err == nil && mount == "cow::/" {
					t.Error("its profile is on the host")
				}
			})
		}
	}
	w.NoStrays(t)
}

// TestIntegrationMountsEngine: the engine ns is taken where it can be, and where it
// cannot it is said why.
func TestIntegrationMountsEngine(t *testing.T) {
	viewtest.Need(t, "setpriv", "unshare")
	w := viewtest.New(t)
	for _, user := range []bool{false, true} {
		r := umrunAs(t, w, user, "-q", "-n", "none", "-m", "tmpfs:/opt", "--dry-run", "--", "true").Result()
		var plan struct {
			Files struct{ Engine, Why string }
		}
		if err := json.Unmarshal([]byte(r.Stdout), &plan); err != nil || plan.Files.Engine != "ns" || plan.Files.Why == "" {
			t.Errorf("%v: %v", err, r)
		}
	}
	// A user namespace in which no other may be made.
	script := `echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$0" "$@"`
	in := func(args ...string) viewtest.Result {
		args = append([]string{"unshare", "-Ur", "sh", "-c", script, viewtest.Binary(t), "-q", "-n", "none", "-m", "tmpfs:/opt"}, args...)
		return w.HostCmd(context.Background(), args...).Result()
	}
	r := in("--fs-engine", "ns", "true")
	if r.Status != 123 || !strings.Contains(r.Stderr, "a private mount namespace cannot be had here") || !strings.Contains(r.Stderr, "sysctl user.max_user_namespaces") {
		t.Error(r)
	}
	if r := in("sh", "-c", "touch /opt/x && ls /opt"); r.Status != 0 || r.Stdout != "x\n" {
		t.Errorf("by the engine trap: %v", r)
	}
}
