// SPDX-License-Identifier: Apache-2.0

// Real servers behind a peer: nginx, dnsmasq, iperf3, sshd, and a git
// repository over HTTP.

package viewtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Ports of the real servers. nginx also listens on 80 and 443.
const (
	PortSSH   = 22
	PortDNS   = 53
	PortIperf = 5201
)

// Names that dnsmasq serves, all of lab.test:
//
//	www     A and AAAA of the peer       alias   CNAME of www
//	v4      only A                       v6      only AAAA
//	big     TXT of more than 1232 bytes  intra.corp  for the search domain
//	*.wild  A and AAAA of the peer: for names that nobody else asks for
//	closed  BlackholeIP6 and PeerIP4: the first address never answers
const (
	NameWeb   = "www.lab.test"
	NameV4    = "v4.lab.test"
	NameV6    = "v6.lab.test"
	NameAlias = "alias.lab.test"
	NameBig   = "big.lab.test"
	NameIntra = "intra.corp.lab.test"
	NameHalf  = "closed.lab.test"
	NameWild  = "wild.lab.test"
)

// BigSize is the size of /big.bin in bytes.
const BigSize = 20 << 20

// BigSum is the SHA-256 of /big.bin in hexadecimal.
var BigSum = sync.OnceValue(func() string {
	h := sha256.New()
	io.Copy(h, io.LimitReader(&Pattern{}, BigSize))
	return hex.EncodeToString(h.Sum(nil))
})

// startServers starts everything behind the peer and waits until it listens.
func (p *Peer) startServers() error {
	p.serve = &servers{}
	return errors.Join(p.startSmall(), p.startNginx(), p.startDNS(), p.startIperf(), p.startSSH())
}

// service runs a server in the foreground and waits until the TCP port answers.
func (p *Peer) service(port int, args ...string) error {
	if _, err := exec.LookPath(args[0]); err != nil {
		return nil // the test that wants it says Need
	}
	c := p.Command(p.w.alive, args...)
	if err := c.Start(); err != nil {
		return err
	}
	p.serve.done.Go(func() { c.Wait() })
	return poll(10*time.Second, func() error {
		conn, err := p.DialContext(p.w.alive, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return fmt.Errorf("%s: %w\n%s%s", args[0], err, c.Output(), c.Errors())
		}
		return conn.Close()
	})
}

func (p *Peer) startNginx() error {
	www := filepath.Join(p.dir, "www")
	if err := errors.Join(os.Mkdir(www, 0o755),
		write(filepath.Join(www, "index.html"), fmt.Sprintf("<title>lab</title>peer %d\n", p.Index)),
		p.bigFile(filepath.Join(www, "big.bin")), p.gitRepo(filepath.Join(www, "repo.git")), p.certificate()); err != nil {
		return err
	}
	conf := filepath.Join(p.dir, "nginx.conf")
	text := strings.ReplaceAll(`daemon off;
master_process off;
error_log stderr;
pid DIR/nginx.pid;
events { worker_connections 2048; }
http {
	access_log DIR/access.log;
	client_body_temp_path DIR/tmp; proxy_temp_path DIR/tmp; fastcgi_temp_path DIR/tmp;
	uwsgi_temp_path DIR/tmp; scgi_temp_path DIR/tmp;
	client_max_body_size 0;
	default_type text/html;
	server {
		listen 80 backlog=1024; listen [::]:80 backlog=1024;
		listen 443 ssl; listen [::]:443 ssl;
		ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem;
		root DIR/www;
		location = /addr { return 200 "$remote_addr\n"; }
		location = /slow.bin { alias DIR/www/big.bin; limit_rate 64k; }
		location /upload { dav_methods PUT; alias DIR/upload; create_full_put_path on; }
	}
}
`, "DIR", p.dir)
	if err := errors.Join(write(conf, text), os.Mkdir(filepath.Join(p.dir, "upload"), 0o755)); err != nil {
		return err
	}
	return p.service(80, "nginx", "-e", "stderr", "-p", p.dir, "-c", conf)
}

// CA is the certificate of the peer's HTTPS server, to be trusted as its own
// authority.
func (p *Peer) CA() string { return filepath.Join(p.dir, "cert.pem") }

// Requests is nginx's log: what was asked for, by whom.
func (p *Peer) Requests() string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "access.log"))
	return string(b)
}

// Uploaded is where a PUT of /upload/NAME ends.
func (p *Peer) Uploaded(name string) string { return filepath.Join(p.dir, "upload", name) }

func (p *Peer) certificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(int64(p.Index) + 1), Subject: pkix.Name{CommonName: NameWeb},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		DNSNames:    []string{NameWeb, NameV4, NameV6, NameAlias, NameIntra},
		IPAddresses: []net.IP{PeerIP4.AsSlice(), PeerIP6.AsSlice()},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		write(filepath.Join(p.dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(filepath.Join(p.dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk}))))
}

func (p *Peer) bigFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.LimitReader(&Pattern{}, BigSize))
	return errors.Join(err, f.Close())
}

// GitFile is the content of README in the repository at /repo.git.
const GitFile = "cloned through the tunnel\n"

// gitRepo makes a bare repository for git's dumb HTTP protocol.
func (p *Peer) gitRepo(path string) error {
	if _, err := exec.LookPath("git"); err != nil {
		return nil
	}
	work := filepath.Join(p.dir, "work")
	if err := errors.Join(os.Mkdir(work, 0o755), write(filepath.Join(work, "README"), GitFile)); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"-C", work, "init", "-q", "-b", "main"},
		{"-C", work, "add", "README"},
		{"-C", work, "-c", "user.name=lab", "-c", "user.email=lab@lab.test", "commit", "-q", "-m", "one"},
		{"clone", "-q", "--bare", work, path},
		{"-C", path, "update-server-info"},
	} {
		c := exec.CommandContext(p.w.alive, "git", args...)
		c.Env = append(environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w\n%s", args, err, out)
		}
	}
	return nil
}

func (p *Peer) startDNS() error {
	args := []string{"dnsmasq", "-k", "--conf-file=/dev/null", "--user=root", "--group=root", "--pid-file",
		"--bind-interfaces", // without, it answers no TCP on a second interface with the same address
		"--no-resolv", "--no-hosts", "--log-queries", "--log-facility=" + filepath.Join(p.dir, "dns.log"),
		"--local=/test/", "--local=/arpa/", "--domain-needed", "--edns-packet-max=1232",
		"--host-record=" + NameWeb + ",10.77.0.1,fd77::1",
		"--host-record=" + NameV4 + ",10.77.0.1",
		"--host-record=" + NameV6 + ",fd77::1",
		"--host-record=" + NameIntra + ",10.77.0.1,fd77::1",
		"--host-record=" + NameHalf + ",10.77.0.1," + BlackholeIP6.String(),
		"--address=/" + NameWild + "/10.77.0.1", "--address=/" + NameWild + "/fd77::1",
		"--cname=" + NameAlias + "," + NameWeb,
	}
	for i := range 20 { // 20 strings of 200 bytes: no UDP answer holds them
		args = append(args, fmt.Sprintf("--txt-record=%s,%02d%s", NameBig, i, strings.Repeat("x", 198)))
	}
	return p.service(PortDNS, args...)
}

// Queries is dnsmasq's log: which names were asked, by whom.
func (p *Peer) Queries() string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "dns.log"))
	return string(b)
}

func (p *Peer) startIperf() error {
	return p.service(PortIperf, "iperf3", "-s", "-p", fmt.Sprint(PortIperf))
}

// SSHKey is a private key that the peer's sshd accepts for root.
func (p *Peer) SSHKey() string { return filepath.Join(p.dir, "id") }

// SSHDConf writes the configuration and the keys of an sshd that listens on
// port, into dir, and returns its path. The key dir/id may log in.
func SSHDConf(dir string, port int) (string, error) {
	for _, name := range []string{"hostkey", "id"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", filepath.Join(dir, name)).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("ssh-keygen: %w\n%s", err, out)
		}
	}
	conf := filepath.Join(dir, "sshd.conf")
	return conf, write(conf, fmt.Sprintf(`Port %d
HostKey %[2]s/hostkey
AuthorizedKeysFile %[2]s/id.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
UseDNS no
Subsystem sftp internal-sftp
`, port, dir))
}

func (p *Peer) startSSH() error {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		return nil
	}
	conf, err := SSHDConf(p.dir, PortSSH)
	if err != nil {
		return err
	}
	p.Do(func() { err = os.MkdirAll("/run/sshd", 0o755) }) // sshd's empty directory, in our /run
	if err != nil {
		return err
	}
	return p.service(PortSSH, "/usr/sbin/sshd", "-D", "-e", "-f", conf)
}

func write(path, content string) error { return os.WriteFile(path, []byte(content), 0o644) }
