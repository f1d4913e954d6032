// SPDX-License-Identifier: Apache-2.0

// Proxies: umrun behind them, beside a program that speaks to them itself.

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The server's namespace has the proxies too; what they add is the same for both sides:
//
//	namespace h                                     namespace s
//	+-------------------------------------+         +------------------------------+
//	| umrun -n socks5://, agent           |         | dante       \                |
//	| agent that speaks SOCKS5 or CONNECT |  veth   | tinyproxy    >--- the server |
//	| umrun -n ssh:, agent                |=========| sshd        /     10.98.0.2  |
//	| ssh -D, agent that speaks SOCKS5    |         |                              |
//	+-------------------------------------+         +------------------------------+
const (
	portDante, portTiny, portSSH = 1080, 3128, 2222
	portSSHSocks                 = 1081 // of ssh -D, in h, on its loopback
	sshAlias                     = "umrun-bench"
)

// A proxied is one kind of proxy.
type proxied struct {
	link, beside string
	needs        []string
	packages     string // that have them
	start        func(b *bench, ctx context.Context, h, s *namespace, dir string) (spec, via string, wrap []string, err error)
}

var proxyKinds = []proxied{
	{"socks5", "agent with SOCKS5, dante", []string{"danted"}, "dante-server", (*bench).dante},
	{"http", "agent with CONNECT, tinyproxy", []string{"tinyproxy"}, "tinyproxy", (*bench).tinyproxy},
	{"ssh", "agent with SOCKS5, ssh -D", []string{"/usr/sbin/sshd", "ssh", "ssh-keygen"}, "openssh-server openssh-client", (*bench).sshd},
}

// proxyPairs starts the proxies that are asked for.
func (b *bench) proxyPairs(ctx context.Context, h, s *namespace) (all []pair, err error) {
	for _, k := range proxyKinds {
		if !b.wantsLink(k.link) {
			continue
		}
		if err := have(k.needs...); err != nil {
			missing(k.link, err, k.packages)
			continue
		}
		dir, err := os.MkdirTemp(b.w.dir, k.link)
		if err != nil {
			return nil, err
		}
		spec, via, wrap, err := k.start(b, ctx, h, s, dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.link, err)
		}
		// The ends have no connection of their own in common: each has its own congestion
		// control, and what ready compares is not there.
		behind := func(worker bool, argv ...string) (*side, error) {
			g, err := b.sideOf(ctx, h, nobody, argv...)
			if err != nil {
				return nil, err
			}
			if err := g.ready(ctx, b.cc); err != nil {
				g.giveUp()
				return nil, errors.Join(err, g.cmd.Wait())
			}
			if g.addr = rival4; worker {
				g.worker = g.cmd.Process.Pid
			}
			return g, nil
		}
		all = append(all, onStacks(k.link, k.beside, func(stack string) (*side, error) {
			return behind(true, append(wrap, b.umrun, "-q", "-n", spec+",cc="+b.cc+",stack="+stack, "--", b.self, "agent")...)
		}, func() (*side, error) { return behind(false, b.self, "agent", via) })...)
	}
	return all, nil
}

// listens waits until somebody listens in a namespace.
func (b *bench) listens(ctx context.Context, ns *namespace, addr string) error {
	for until := time.Now().Add(stepTime); ; time.Sleep(10 * time.Millisecond) {
		err := ns.do(func() error {
			c, err := net.DialTimeout("tcp4", addr, time.Second)
			if err == nil {
				err = c.Close()
			}
			return err
		})
		if err == nil || time.Now().After(until) || ctx.Err() != nil {
			return err
		}
	}
}

func (b *bench) dante(ctx context.Context, _, s *namespace, dir string) (spec, via string, wrap []string, err error) {
	conf := filepath.Join(dir, "danted.conf")
	at := fmt.Sprintf("%s:%d", rival4, portDante)
	err = os.WriteFile(conf, fmt.Appendf(nil, `logoutput: %s/log
internal: %s port = %d
external: %[2]s
socksmethod: none
clientmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0/0 to: 0/0 }
socks pass { from: 0/0 to: 0/0 }
`, dir, rival4, portDante), 0o644)
	if err == nil {
		_, err = b.helper(ctx, s, "", "danted", "-f", conf, "-p", conf+".pid")
	}
	if err == nil {
		err = b.listens(ctx, s, at)
	}
	return "socks5://" + at, "socks5://" + at, nil, err
}

func (b *bench) tinyproxy(ctx context.Context, _, s *namespace, dir string) (spec, via string, wrap []string, err error) {
	conf := filepath.Join(dir, "tinyproxy.conf")
	at := fmt.Sprintf("%s:%d", rival4, portTiny)
	err = os.WriteFile(conf, fmt.Appendf(nil, "Port %d\nTimeout 60\nMaxClients 500\nLogLevel Error\nLogFile \"%s/log\"\n", portTiny, dir), 0o644)
	if err == nil {
		// It is asked at the start for a name that is nobody's; the machine's own servers
		// are not to be reached from here, and it would wait for them.
		_, err = b.helper(ctx, s, "", "unshare", "--mount", "sh", "-c", `mount --bind /dev/null /etc/resolv.conf && exec "$@"`, "sh", "tinyproxy", "-d", "-c", conf)
	}
	if err == nil {
		err = b.listens(ctx, s, at)
	}
	return "http://" + at, "http://" + at, nil, err
}

// sshd starts a server with keys of its own, and an ssh -D to it. umrun reads the keys from
// /etc/ssh/ssh_config, in whose place it sees another file.
func (b *bench) sshd(ctx context.Context, h, s *namespace, dir string) (spec, via string, wrap []string, err error) {
	fail := func(err error) (string, string, []string, error) { return "", "", nil, err }
	for _, name := range []string{"hostkey", "id"} {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			return fail(fmt.Errorf("ssh-keygen: %w\n%s", err, out))
		}
	}
	key, err := os.ReadFile(filepath.Join(dir, "hostkey.pub"))
	if err != nil {
		return fail(err)
	}
	for name, text := range map[string]string{
		"sshd.conf": fmt.Sprintf("Port %d\nListenAddress %s\nHostKey %[3]s/hostkey\nAuthorizedKeysFile %[3]s/id.pub\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nUseDNS no\n",
			portSSH, rival4, dir),
		"known": sshAlias + " " + strings.TrimSpace(string(key)) + "\n",
		"config": fmt.Sprintf("Host %s\n\tHostName %s\n\tPort %d\n\tUser root\n\tHostKeyAlias %[1]s\n\tIdentityFile %[4]s/id\n\tIdentitiesOnly yes\n\tUserKnownHostsFile %[4]s/known\n",
			sshAlias, rival4, portSSH, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return fail(err)
		}
	}
	// sshd wants a directory of its own in /run, which not every machine has.
	if _, err := b.helper(ctx, s, "", "unshare", "--mount", "sh", "-c", `mount -t tmpfs none /run && mkdir /run/sshd && exec "$@"`, "sh",
		"/usr/sbin/sshd", "-D", "-f", filepath.Join(dir, "sshd.conf"), "-E", filepath.Join(dir, "log")); err != nil {
		return fail(err)
	}
	if err := b.listens(ctx, s, fmt.Sprintf("%s:%d", rival4, portSSH)); err != nil {
		return fail(err)
	}
	conf, socks := filepath.Join(dir, "config"), fmt.Sprintf("127.0.0.1:%d", portSSHSocks)
	if _, err := b.helper(ctx, h, "", "ssh", "-F", conf, "-N", "-D", socks, "-o", "BatchMode=yes", sshAlias); err != nil {
		return fail(err)
	}
	return "ssh:" + sshAlias, "socks5://" + socks,
		[]string{"unshare", "--mount", "sh", "-c", `mount --bind "$1" /etc/ssh/ssh_config && shift && exec "$@"`, "sh", conf}, b.listens(ctx, h, socks)
}
