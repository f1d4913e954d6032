// SPDX-License-Identifier: Apache-2.0

// Programs of the table that fetch, log in and copy: curl, wget, git, OpenSSH,
// rsync, mosh; socat, netcat and iperf3.

package viewtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"umrun/view/viewtest"
)

var fetchers = []program{
	{name: "curl", version: words("curl --version"), steps: []step{
		{name: "client", did: "client: HTTP and HTTPS by address and by name, both families, Happy Eyeballs, 30 at once, 20 MiB down and up by SHA-256 and length, five failures by exit status", gaps: "HTTP/3: not in this build of curl", do: same("curl")},
	}},
	{name: "wget", version: words("wget --version"), steps: []step{
		{name: "client", did: "client: pages, both families, 20 MiB by SHA-256", do: same("wget")},
	}},
	{name: "git", version: words("git --version"), needs: []string{"ssh"}, steps: []step{
		{name: "http", did: "client: clone over HTTP", do: same("git")},
		{name: "ssh", quick: true, did: "client: clone over SSH, commit, push; the peer's log has the commit", do: gitSSH},
		{name: "daemon", quick: true, did: "server: `git daemon`, cloned from the peer, 5 MiB, `git fsck`", do: gitDaemon},
	}},
}

// gitConfig keeps the machine's own settings out.
var gitConfig = []string{"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
	"GIT_AUTHOR_NAME=lab", "GIT_AUTHOR_EMAIL=lab@lab.test", "GIT_COMMITTER_NAME=lab", "GIT_COMMITTER_EMAIL=lab@lab.test"}

func gitSSH(x *try) {
	shell := "GIT_SSH_COMMAND=ssh " + strings.ReplaceAll(sshOpts, "KEY", identity(x, x.w))
	// A branch that nobody has checked out may be pushed to.
	x.ok(in(x.view("sh", "-ec", `git clone -q root@10.77.0.1:$0/peer0/repo.git repo 2>&1 || git clone -q root@10.77.0.1:$0/peer0/www/repo.git repo
cd repo; head -c 3000000 {big} >more; git add more; git commit -qm more; git push -q origin HEAD:pushed`, x.w.Dir()), "", append(gitConfig, shell)...))
	mine := x.ok(in(x.here("git", "-C", "{home}/repo", "rev-parse", "HEAD"), "", gitConfig...))
	theirs := x.p.Cmd(x.Context(), "git", "-C", x.w.Dir()+"/peer0/www/repo.git", "rev-parse", "pushed")
	x.want(x.ok(in(theirs, "", gitConfig...)), mine)
}

func gitDaemon(x *try) {
	x.ok(in(x.here("sh", "-ec", `git init -q -b main bare; cd bare; head -c 5000000 {big} >big; git add big; git commit -qm big`), "", gitConfig...))
	x.serve(9418, in(x.view(words("git daemon --reuseaddr --export-all --base-path={home} --listen=0.0.0.0 --listen=::")...), "", gitConfig...))
	for i, at := range []string{"{self4}", "[{self6}]"} {
		to := fmt.Sprintf("{home}/clone%d", i)
		x.ok(in(x.peer("git", "clone", "-q", "git://"+at+"/bare", to), "", gitConfig...))
		x.ok(in(x.here("git", "-C", to, "fsck", "--full"), "", gitConfig...))
		x.ok(x.here("cmp", "{home}/bare/big", to+"/big"))
	}
}

var shells = []program{
	{name: "OpenSSH", version: words("ssh -V"), needs: []string{"sshd", "ssh-keygen"}, steps: []step{
		{name: "ssh", did: "client: commands, stdin, exit status", do: same("ssh")},
		{name: "scp-down", did: "client: `scp` of 20 MiB from the peer, SHA-256", do: same("scp-down")},
		{name: "sftp-and-forwards", quick: true, did: "client: `sftp` up and down, SHA-256; `ssh -L`, `-R` and `-D`, with curl through each", do: sshForwards},
		{name: "sshd", did: "server: login from the peer, stdin, `SSH_CONNECTION`", do: whole("TestIntegrationSSHServer", TestIntegrationSSHServer)},
		{name: "sshd-copies", quick: true, did: "server: 20 MiB in and out by `scp` over IPv4 and IPv6, SHA-256", do: sshdCopies},
	}},
	{name: "rsync", version: words("rsync --version"), needs: []string{"ssh"}, steps: []step{
		{name: "ssh", quick: true, did: "client: a tree of 200 files to the peer over SSH and back, `diff -r`; a second run moves nothing", do: rsyncSSH},
		{name: "client", did: "client of a daemon behind the peer: 20 MiB down and up, SHA-256", do: rsyncClient},
		{name: "daemon", quick: true, did: "server: daemon, a tree of 200 files to the peer over IPv4 and IPv6, `diff -r`", do: rsyncDaemon},
	}},
	{name: "mosh", version: words("mosh --version"), needs: []string{"mosh-server", "ssh"}, steps: []step{
		{name: "client", did: "client: started over SSH, a command at the peer, a line typed and echoed over UDP, exit", do: moshClient},
		{name: "server", did: "server: mosh-client of the peer, a line typed and echoed over UDP, exit", do: moshServer},
	}},
}

func sshForwards(x *try) {
	opts := strings.ReplaceAll(sshOpts, "KEY", identity(x, x.w))
	batch := x.file("batch", "get {big} {home}/down\nput {home}/down "+x.p.Uploaded("sftp")+"\n")
	x.ok(x.view(words("sftp -q -b " + batch + " " + opts + " root@10.77.0.1")...))
	sumFile(x, filepath.Join(x.w.Home(), "down"))
	sumFile(x, x.p.Uploaded("sftp"))
	// -R: the peer's curl reaches nginx of the peer through the view.
	x.want(x.ok(x.view("sh", "-ec", `
ssh -f -N -o ExitOnForwardFailure=yes -L 127.0.0.1:8000:10.77.0.1:80 -L [::1]:8000:[fd77::2]:80 -D 127.0.0.1:8001 -R 8002:v4.lab.test:80 `+opts+` root@10.77.0.1
curl -sS -m20 http://127.0.0.1:8000/addr
curl -gsS -m20 http://[::1]:8000/big.bin -o {home}/forwarded
curl -sS -m20 --noproxy '' --socks5-hostname 127.0.0.1:8001 http://10.77.0.2/addr
ssh -n `+opts+` root@10.77.0.1 curl -sS -m20 http://127.0.0.1:8002/addr
`)), "10.77.0.1\n10.77.0.1\n{self4}\n")
	sumFile(x, filepath.Join(x.w.Home(), "forwarded"))
}

func sshdCopies(x *try) {
	conf, key := sshd(x, x.w)
	x.serve(2222, x.view("/usr/sbin/sshd", "-D", "-e", "-f", conf))
	opts := words(strings.ReplaceAll(sshOpts, "KEY", key) + " -P 2222 -q")
	scp := func(from, to string) {
		x.Helper()
		x.ok(x.p.Cmd(x.Context(), x.fill(append(append([]string{"scp"}, opts...), from, to))...))
	}
	for i, at := range []string{"{self4}", "[{self6}]"} {
		up, down := fmt.Sprintf("%s/up%d", x.w.Home(), i), fmt.Sprintf("%s/down%d", x.w.Dir(), i)
		scp("{big}", "lab@"+at+":"+up)
		sumFile(x, up)
		scp("lab@"+at+":{big}", down)
		sumFile(x, down)
	}
}

// tree makes 200 files of many sizes below the home directory.
func tree(x *try) {
	x.ok(x.here("sh", "-ec", `mkdir tree; cd tree; for i in $(seq 1 200); do mkdir -p d$((i % 7)); head -c $((i * i * 10)) {big} >d$((i % 7))/f$i; done; ln -s d1 link`))
}

func rsyncSSH(x *try) {
	tree(x)
	shell := "ssh " + strings.ReplaceAll(sshOpts, "KEY", identity(x, x.w))
	there := "root@10.77.0.1:" + x.p.Uploaded("tree") + "/"
	x.ok(x.view("rsync", "-a", "-e", shell, "tree/", there))
	again := x.ok(x.view("rsync", "-a", "--stats", "-e", shell, "tree/", there))
	x.want(again, `/regular files transferred: 0\n/`)
	x.ok(x.view("rsync", "-az", "-e", shell, there, "back/"))
	x.ok(x.here("diff", "-r", "tree", "back"))
}

const rsyncd = `use chroot = no
[tree]
path = {home}/tree
[big]
path = {home}/module
read only = no
`

func rsyncClient(x *try) {
	conf := x.file("rsyncd.conf", rsyncd)
	x.ok(x.here("sh", "-ec", "mkdir module; cp {big} module/big.bin"))
	x.answer(8730, x.peer("rsync", "--daemon", "--no-detach", "--port=8730", "--config="+conf))
	x.ok(x.view("rsync", "-a", "rsync://10.77.0.1:8730/big/big.bin", "down"))
	sumFile(x, filepath.Join(x.w.Home(), "down"))
	x.ok(x.view("rsync", "-a", "{home}/down", "rsync://[fd77::1]:8730/big/up"))
	sumFile(x, filepath.Join(x.w.Home(), "module", "up"))
}

func rsyncDaemon(x *try) {
	tree(x)
	conf := x.file("rsyncd.conf", rsyncd)
	x.serve(8730, x.view("rsync", "--daemon", "--no-detach", "--port=8730", "--config="+conf))
	for i, at := range []string{"{self4}", "[{self6}]"} {
		to := fmt.Sprintf("back%d", i)
		x.ok(x.peer("rsync", "-a", "rsync://"+at+":8730/tree/", to))
		x.ok(x.here("diff", "-r", "tree", to))
	}
}

// typed is a shell that greets, answers a line, and ends with 3.
const typed = `echo here-$((40 + 2)); read line; echo "got [$line]"; sleep 1; exit 3`

// moshTalk holds the conversation with typed through mosh. mosh-client does not
// pass the status on.
func moshTalk(x *try, c *viewtest.Cmd) {
	x.Helper()
	c.Env = append(c.Env, "LC_ALL=C.UTF-8", "TERM=xterm")
	s := onTerminal(x, c)
	s.expect("here-42")
	fmt.Fprint(s.pty, "umrun and mosh\n")
	s.expect("got [umrun and mosh]")
	if r := c.Result(); r.Status != 0 {
		x.Errorf("%s exits with %d", r.Args[0], r.Status)
	}
	s.expect("[mosh is exiting.]")
}

func moshClient(x *try) {
	moshTalk(x, x.view("mosh", "--ssh=ssh "+strings.ReplaceAll(sshOpts, "KEY", identity(x, x.w)),
		"--server=mosh-server new -l LC_ALL=C.UTF-8", "root@www.lab.test", "--", "sh", "-c", typed))
}

func moshServer(x *try) {
	// mosh-server leaves its session in the background; the shell waits for a
	// while, or umrun would end it.
	c := start(x, in(x.view("sh", "-c", `mosh-server new -i 0.0.0.0 -p 60001 -l LC_ALL=C.UTF-8 -- sh -c "$0"; sleep 50`, typed), "", "LC_ALL=C.UTF-8"))
	var key string
	viewtest.Eventually(x, 20*time.Second, func() error {
		_, rest, _ := strings.Cut(c.Output(), "MOSH CONNECT 60001 ")
		var ok bool
		key, _, ok = strings.Cut(rest, "\n")
		if !ok {
			return fmt.Errorf("no MOSH CONNECT in %q %q", c.Output(), c.Errors())
		}
		return nil
	})
	moshTalk(x, in(x.peer("mosh-client", "{self4}", "60001"), "", "MOSH_KEY="+strings.TrimSpace(key)))
}

var pipes = []program{
	{name: "socat", version: words("socat -V"), steps: []step{
		{name: "server", quick: true, did: "server: `TCP6-LISTEN,fork` with a child a connection, half-closed after 20 MiB, SHA-256; `UDP6-RECVFROM,fork`; `OPENSSL-LISTEN`", do: socatServer},
		{name: "client", quick: true, did: "client: 20 MiB to the peer and its checksum back; UDP; between an AF_UNIX socket and the tunnel", do: socatClient},
	}},
	{name: "netcat (OpenBSD)", version: words("dpkg-query -W netcat-openbsd"), needs: []string{"nc.openbsd"}, steps: []step{
		{name: "both", quick: true, did: "client and server: 20 MiB each way, SHA-256; `-z` finds open and closed ports; UDP; `-U`", do: netcat},
	}},
	{name: "iperf3", version: words("iperf3 --version"), steps: []step{
		{name: "client", did: "client: TCP up and down, UDP", do: same("iperf3")},
		{name: "server", did: "server: TCP up, down, both at once, 4 streams, IPv6; UDP at 5 Mbit/s up and down with at most 2 % lost", do: iperfServer},
	}},
}

func socatServer(x *try) {
	pem := x.file("both.pem", string(must(os.ReadFile(x.p.CA())))+string(must(os.ReadFile(filepath.Join(filepath.Dir(x.p.CA()), "key.pem")))))
	x.serve(7000, x.view("sh", "-c", `socat TCP6-LISTEN:7000,fork,reuseaddr,ipv6only=0 EXEC:sha256sum &
socat UDP6-RECVFROM:7001,fork,ipv6only=0 EXEC:cat &
socat OPENSSL-LISTEN:7002,fork,reuseaddr,pf=ip6,ipv6only=0,verify=0,cert=`+pem+` EXEC:cat & wait`))
	for _, at := range []string{"{self4}", "[{self6}]"} {
		x.want(x.ok(x.peer("sh", "-c", "socat -t20 - TCP:"+at+":7000 <{big}")), "{bigsum}  -\n")
		x.want(x.ok(in(x.peer("socat", "-t1", "-", "UDP:"+at+":7001"), "a datagram")), "a datagram")
		x.want(x.ok(in(x.peer("socat", "-t2", "-", "OPENSSL:"+at+":7002,verify=0"), "encrypted")), "encrypted")
	}
	x.want(x.ok(x.peer("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do socat -t20 - TCP:{self4}:7000 <{big} & done | sort -u; wait")), "{bigsum}  -\n")
}

func socatClient(x *try) {
	x.want(x.ok(x.view("sh", "-c", "socat -t20 - TCP:www.lab.test:9 <{big}")), viewtest.PatternSum(viewtest.BigSize))
	x.want(x.ok(in(x.view("socat", "-t1", "-", "UDP:[fd77::1]:7"), "a datagram")), "a datagram")
	x.want(x.ok(x.view("sh", "-c", `socat UNIX-LISTEN:{home}/s,fork TCP:10.77.0.1:9 & server=$!; while ! [ -S {home}/s ]; do sleep 0.05; done
socat -t20 - UNIX-CONNECT:{home}/s <{big}; kill $server`)), viewtest.PatternSum(viewtest.BigSize))
	r := x.view("socat", "-", "TCP:10.77.0.1:1006").Result()
	if r.Status != 1 || !strings.Contains(r.Stderr, "Connection refused") {
		x.Errorf("want a refusal, got %v", r)
	}
}

func netcat(x *try) {
	x.want(x.ok(x.view("sh", "-c", "nc.openbsd -N 10.77.0.1 9 <{big}")), viewtest.PatternSum(viewtest.BigSize))
	r := x.view("nc.openbsd", "-zvw5", "10.77.0.1", "1004-1006").Result()
	x.want(r.Stderr, `/1004 port .* succeeded!\n.*1005 port .* succeeded!\n.*port 1006 .* failed: Connection refused\n/`)
	x.want(x.ok(in(x.view("nc.openbsd", "-u", "-w1", "fd77::1", "7"), "a datagram")), "a datagram")
	u := start(x, x.view("sh", "-c", "nc.openbsd -l 7000 >{home}/in; nc.openbsd -N -6 -l 7000 <{big}"))
	// A probe would take nc's only connection, so the peer tries until it is there.
	again := func(script string) {
		x.Helper()
		viewtest.Eventually(x, 20*time.Second, func() error {
			if r := x.peer("sh", "-c", script).Result(); r.Status != 0 {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
	}
	again("nc.openbsd -N {self4} 7000 <{big}")
	again("nc.openbsd -d {self6} 7000 >{home}/out")
	if r := u.Result(); r.Status != 0 {
		x.Errorf("%v", r)
	}
	sumFile(x, filepath.Join(x.w.Home(), "in"))
	sumFile(x, filepath.Join(x.w.Home(), "out"))
	x.want(x.ok(x.view("sh", "-c", `nc.openbsd -lU {home}/s >{home}/unix & while ! [ -S {home}/s ]; do sleep 0.05; done; nc.openbsd -NU {home}/s <{big}; wait`)), "")
	sumFile(x, filepath.Join(x.w.Home(), "unix"))
}

func iperfServer(x *try) {
	x.serve(5201, x.view("iperf3", "-s"))
	type sum struct {
		Bytes   int64 `json:"bytes"`
		Packets int   `json:"packets"`
		Lost    int   `json:"lost_packets"`
	}
	for _, flags := range []string{"-c {self4} -t 1", "-c {self4} -t 1 -R", "-c {self6} -t 1", "-c {self4} -t 1 --bidir", "-c {self4} -t 1 -P 4",
		"-c {self4} -u -b 5M -t 1", "-c {self6} -u -b 5M -t 1 -R"} {
		var report struct {
			Error string
			End   struct {
				Sum          sum `json:"sum"`
				Sent         sum `json:"sum_sent"`
				Received     sum `json:"sum_received"`
				ReceivedBack sum `json:"sum_received_bidir_reverse"`
			}
		}
		// The server is busy until it has put the last run away, and on a busy
		// machine datagrams are lost natively too: it may take another try.
		viewtest.Eventually(x, 20*time.Second, func() error {
			r := x.peer(words("iperf3 -J " + flags)...).Result()
			if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil || r.Status != 0 {
				return fmt.Errorf("%v: %v", err, r)
			}
			e := report.End
			switch {
			case strings.Contains(flags, "-u"):
				if e.Sum.Packets < 300 || e.Sum.Lost > e.Sum.Packets/50 {
					return fmt.Errorf("%s: %d of %d datagrams were lost", flags, e.Sum.Lost, e.Sum.Packets)
				}
			case e.Received.Bytes < 1<<20 || e.Received.Bytes > e.Sent.Bytes:
				return fmt.Errorf("%s: %d bytes sent, %d received", flags, e.Sent.Bytes, e.Received.Bytes)
			case strings.Contains(flags, "bidir") && e.ReceivedBack.Bytes < 1<<20:
				return fmt.Errorf("%s: %d bytes back", flags, e.ReceivedBack.Bytes)
			}
			return nil
		})
	}
}

// must is for what the test itself has just made.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
