// SPDX-License-Identifier: Apache-2.0

// SSH against a server of golang.org/x/crypto/ssh.

package proxy

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// newKey returns a key and a file with it, which has a passphrase if that is not
// empty.
func newKey(t *testing.T, passphrase string) (ssh.Signer, string) {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(priv, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, file
}

// A sshServer takes the password "pw" and one key; of channels it does as their
// destination's port says.
type sshServer struct {
	at   netip.AddrPort
	host ssh.PublicKey

	mu    sync.Mutex
	conns []net.Conn
}

const (
	portEcho    = 7
	portDiscard = 9
	portRefuse  = 1
	portForbid  = 2
	portNoRoute = 3
)

func newServer(t *testing.T, user ssh.PublicKey) *sshServer {
	t.Helper()
	hostKey, _ := newKey(t, "")
	s := &sshServer{host: hostKey.PublicKey()}
	conf := &ssh.ServerConfig{
		PasswordCallback: func(_ ssh.ConnMetadata, pw []byte) (*ssh.Permissions, error) {
			if string(pw) != "pw" {
				return nil, errors.New("no")
			}
			return nil, nil
		},
		PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if user == nil || !bytes.Equal(k.Marshal(), user.Marshal()) {
				return nil, errors.New("no")
			}
			return nil, nil
		},
	}
	conf.AddHostKey(hostKey)
	s.at = serve(t, func(c *net.TCPConn) {
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		_, chans, reqs, err := ssh.NewServerConn(c, conf)
		if err != nil {
			return
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { ssh.DiscardRequests(reqs) })
		for nc := range chans {
			wg.Go(func() { s.channel(t, nc) })
		}
	})
	return s
}

func (s *sshServer) channel(t *testing.T, nc ssh.NewChannel) {
	var to directTCPIP
	if nc.ChannelType() != "direct-tcpip" || ssh.Unmarshal(nc.ExtraData(), &to) != nil || to.Host != "far.example" {
		t.Errorf("channel %s %+v", nc.ChannelType(), to)
	}
	switch to.Port {
	case portRefuse:
		nc.Reject(ssh.ConnectionFailed, "Connection refused")
		return
	case portForbid:
		nc.Reject(ssh.Prohibited, "open failed")
		return
	case portNoRoute:
		nc.Reject(ssh.ConnectionFailed, "connect failed: No route to host")
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	go ssh.DiscardRequests(reqs)
	defer ch.Close()
	if to.Port == portDiscard {
		io.Copy(io.Discard, ch)
		return
	}
	io.Copy(ch, ch)
	ch.CloseWrite()
}

// cut breaks every connection.
func (s *sshServer) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	s.conns = nil
}

// knows returns a known_hosts file with a key for the server.
func (s *sshServer) knows(t *testing.T, key ssh.PublicKey) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(knownhosts.Line([]string{s.at.String()}, key)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{file}
}

func (s *sshServer) open(t *testing.T, c Config) (*Upstream, func(port uint16) (stacks.UpstreamConn, error)) {
	t.Helper()
	c.Kind, c.User, c.Names = SSH, "me", NewNames(1)[0]
	u := open(t, s.at, c)
	far := c.Names.Addrs("far.example")[0]
	return u, func(port uint16) (stacks.UpstreamConn, error) {
		return u.DialStream(deadline(t), netip.AddrPortFrom(far, port))
	}
}

// TestSSHStream: many streams in one connection, with both ends' closing.
func TestSSHStream(t *testing.T) {
	s := newServer(t, nil)
	_, dial := s.open(t, Config{Password: "pw", SSH: SSHConfig{KnownHosts: s.knows(t, s.host)}})
	msg := bytes.Repeat([]byte("umrun"), 1_000_000)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c, err := dial(portEcho)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			wg.Go(func() {
				c.Write(msg)
				c.CloseWrite()
			})
			if b, err := io.ReadAll(c); !bytes.Equal(b, msg) || err != nil || c.(stacks.Aborter).Aborted() {
				t.Errorf("%d bytes came back, %v, aborted: %v", len(b), err, c.(stacks.Aborter).Aborted())
			}
		})
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) != 1 {
		t.Errorf("%d connections, want 1", len(s.conns))
	}
}

// TestSSHErrors: why a channel was not opened is the errno of connect.
func TestSSHErrors(t *testing.T) {
	s := newServer(t, nil)
	_, dial := s.open(t, Config{Password: "pw", SSH: SSHConfig{KnownHosts: s.knows(t, s.host)}})
	for port, want := range map[uint16]unix.Errno{portRefuse: unix.ECONNREFUSED, portForbid: unix.EACCES, portNoRoute: unix.EHOSTUNREACH} {
		if _, err := dial(port); !errors.Is(err, want) {
			t.Errorf("port %d: %v, want %v", port, err, want)
		}
	}
}

// TestSSHBroken: with the connection its streams are reset, whatever they were
// doing, and the next one has a connection of its own.
func TestSSHBroken(t *testing.T) {
	s := newServer(t, nil)
	_, dial := s.open(t, Config{Password: "pw", SSH: SSHConfig{KnownHosts: s.knows(t, s.host)}})
	for range 3 {
		c, err := dial(portEcho)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "x")
		if got := read(c, 1); got != "x" {
			t.Fatalf("read %q", got)
		}
		s.cut()
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || !c.(stacks.Aborter).Aborted() {
			t.Errorf("read gives %d, %v, aborted: %v", n, err, c.(stacks.Aborter).Aborted())
		}
		c.Close()
		// Until the end was noticed a stream may still be asked for in vain.
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if c, err = dial(portEcho); err == nil {
				c.Close()
				break
			}
			if !errors.Is(err, unix.ENETUNREACH) || time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
}

// TestSSHRemoteClosed: who writes to a channel that the other end has closed
// learns it.
func TestSSHRemoteClosed(t *testing.T) {
	s := newServer(t, nil)
	_, dial := s.open(t, Config{Password: "pw", SSH: SSHConfig{KnownHosts: s.knows(t, s.host)}})
	c, err := dial(portDiscard)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.CloseWrite()
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}

// TestSSHReset: a reset ends the channel at once.
func TestSSHReset(t *testing.T) {
	s := newServer(t, nil)
	_, dial := s.open(t, Config{Password: "pw", SSH: SSHConfig{KnownHosts: s.knows(t, s.host)}})
	c, err := dial(portEcho)
	if err != nil {
		t.Fatal(err)
	}
	c.SetLinger(0)
	c.Close() // the test's end waits for the channel's goroutines
}

// TestHostKey: an unknown key is refused and so is another one, before anything is
// said that is secret; nothing is written.
func TestHostKey(t *testing.T) {
	s := newServer(t, nil)
	other, _ := newKey(t, "")
	wrong := s.knows(t, other.PublicKey())
	for _, tt := range []struct {
		known []string
		cause Cause
		hint  string
	}{
		{nil, UnknownKey, "`ssh -p 2222 me@bastion`"},
		{[]string{filepath.Join(t.TempDir(), "missing")}, UnknownKey, "`ssh -p 2222 me@bastion`"},
		{wrong, WrongKey, wrong[0] + ", line 1"},
	} {
		u, dial := s.open(t, Config{Password: "pw", SSH: SSHConfig{KnownHosts: tt.known, Compared: "ssh -p 2222 me@bastion"}})
		err := u.Probe(deadline(t))
		var un *UnusableError
		if !errors.As(err, &un) || un.Cause != tt.cause || !strings.Contains(un.Hint, tt.hint) || !strings.Contains(un.Error(), ssh.FingerprintSHA256(s.host)) {
			t.Errorf("%v: %v, hint %q", tt.known, err, un.Hint)
		}
		if _, err := dial(portEcho); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("%v: dial: %v", tt.known, err)
		}
	}
}

// TestUserKey: keys of files; those that cannot be used are named.
func TestUserKey(t *testing.T) {
	mine, file := newKey(t, "")
	_, locked := newKey(t, "secret")
	s := newServer(t, mine.PublicKey())
	known := s.knows(t, s.host)
	u, _ := s.open(t, Config{SSH: SSHConfig{KnownHosts: known, Identities: []string{locked, file}}})
	if err := u.Probe(deadline(t)); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		conf Config
		text string
		hint string
	}{
		{Config{SSH: SSHConfig{KnownHosts: known, Identities: []string{locked, "/nonexistent"}}}, "no key and no password", locked + " has a passphrase"},
		{Config{Password: "swordfish", SSH: SSHConfig{KnownHosts: known}}, "me may not log in", ""},
	} {
		u, _ := s.open(t, tt.conf)
		err := u.Probe(deadline(t))
		var un *UnusableError
		if !errors.As(err, &un) || un.Cause != BadAuth || !strings.Contains(err.Error(), tt.text) || !strings.Contains(un.Hint, tt.hint) ||
			strings.Contains(err.Error()+un.Hint, "swordfish") {
			t.Errorf("%v, want %q; hint %q", err, tt.text, tt.hint)
		}
	}
}

// TestReadSSHConfig: what OpenSSH's files set, and what is refused.
func TestReadSSHConfig(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mine := file("config", `
Host bastion
	HostName %h.corp.example
	User gate
	Port 2222
	IdentityFile ~/.ssh/%n_%r
	IdentitiesOnly yes
	HostKeyAlias gates
Host jump
	ProxyJump other
Host *
	UserKnownHostsFile ~/.ssh/hosts
`)
	system := file("system", "Host *\n\tUser nobody\n\tPort 22\n")
	env := func(k string) string { return map[string]string{"SSH_AUTH_SOCK": "/run/agent"}[k] }
	for _, tt := range []struct {
		in, want Config
	}{
		{Config{Host: "bastion"}, Config{Host: "bastion.corp.example", Port: 2222, User: "gate", SSH: SSHConfig{
			KnownHosts:   []string{"/home/me/.ssh/hosts", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"},
			HostKeyAlias: "gates", Identities: []string{"/home/me/.ssh/bastion_gate"}, OnlyThese: true, AgentSocket: "/run/agent",
			Compared: "ssh -p 2222 gate@bastion"}}},
		{Config{Host: "192.0.2.1", User: "you", Port: 22022}, Config{Host: "192.0.2.1", Port: 22022, User: "you", SSH: SSHConfig{
			KnownHosts:  []string{"/home/me/.ssh/hosts", "/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"},
			Identities:  []string{"/home/me/.ssh/id_rsa", "/home/me/.ssh/id_ecdsa", "/home/me/.ssh/id_ed25519"},
			AgentSocket: "/run/agent", Compared: "ssh -p 22022 you@192.0.2.1"}}},
	} {
		c := tt.in
		if err := ReadSSHConfig(&c, "/home/me", "me", env, mine, system, filepath.Join(dir, "missing")); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, c); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.in.Host, d)
		}
	}
	c := Config{Host: "jump"}
	if err := ReadSSHConfig(&c, "/home/me", "me", env, mine, system); err == nil || !strings.Contains(err.Error(), "ProxyJump") {
		t.Errorf("ProxyJump: %v", err)
	}
	c = Config{Host: "x"}
	if err := ReadSSHConfig(&c, "/home/me", "me", env, file("bad", "Match exec true\n\tUser x\nHost\n")); err == nil {
		t.Errorf("a file that cannot be read: %+v", c)
	}
}
