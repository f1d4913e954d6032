// SPDX-License-Identifier: Apache-2.0

// What OpenSSH's files say: ssh_config(5), known_hosts, identities.

package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kevinburke/ssh_config"
)

// SSHConfig is what is known of an SSH server beside its address. The zero value
// trusts no server and has no keys; see [ReadSSHConfig].
type SSHConfig struct {
	KnownHosts   []string // files that hold host keys; those that do not exist hold none
	HostKeyAlias string   // the name to look for there; empty: the host and port
	Identities   []string // files of private keys, tried in this order if they exist
	OnlyThese    bool     // of the agent's keys only those of Identities (IdentitiesOnly)
	AgentSocket  string   // empty: no agent
	Compared     string   // how a person would connect, for advice: "ssh -p 2222 me@host"
}

// ReadSSHConfig completes c by ssh_config(5) files, as OpenSSH's ssh would for the
// host c.Host: the real host, port and user, and where keys are. Of several files
// the first that sets something holds; those that do not exist set nothing. home
// and user are those of who runs this, and env is os.Getenv.
//
// An option that would lead to the server by another way than a connection to its
// address (ProxyCommand, ProxyJump) is an error. Other options do nothing here.
func ReadSSHConfig(c *Config, home, user string, env func(string) string, files ...string) error {
	var confs []*ssh_config.Config
	for _, name := range files {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		conf, err := ssh_config.Decode(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		confs = append(confs, conf)
	}
	alias := c.Host
	all := func(key string) ([]string, error) {
		for _, conf := range confs {
			if v, err := conf.GetAll(alias, key); err != nil {
				return nil, err
			} else if len(v) > 0 {
				return v, nil
			}
		}
		return nil, nil
	}
	var err error
	get := func(key string) string {
		v, e := all(key)
		err = cmp.Or(err, e)
		if len(v) == 0 {
			return ""
		}
		return v[0]
	}
	for _, key := range []string{"ProxyJump", "ProxyCommand"} {
		if v := get(key); v != "" && !strings.EqualFold(v, "none") {
			return fmt.Errorf("ssh_config sets %s for %s, which umrun cannot follow", key, alias)
		}
	}
	x := sshTokens{home: home, alias: alias, localUser: user}
	x.host = alias
	c.Host = x.expand(cmp.Or(get("HostName"), alias))
	x.host = c.Host
	if port := get("Port"); c.Port == 0 && port != "" {
		n, e := strconv.ParseUint(port, 10, 16)
		if e != nil || n == 0 {
			return fmt.Errorf("ssh_config sets the port of %s to %q", alias, port)
		}
		c.Port = uint16(n)
	}
	c.Port = cmp.Or(c.Port, 22)
	c.User = cmp.Or(c.User, get("User"), user)
	x.user, x.port = c.User, c.Port
	s := &c.SSH
	s.HostKeyAlias = x.expand(get("HostKeyAlias"))
	s.OnlyThese = strings.EqualFold(get("IdentitiesOnly"), "yes")
	for _, key := range []string{"UserKnownHostsFile", "GlobalKnownHostsFile"} {
		def := "~/.ssh/known_hosts ~/.ssh/known_hosts2"
		if key == "GlobalKnownHostsFile" {
			def = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
		}
		for _, f := range strings.Fields(cmp.Or(get(key), def)) {
			if f != "none" {
				s.KnownHosts = append(s.KnownHosts, x.expand(f))
			}
		}
	}
	ids, e := all("IdentityFile")
	err = cmp.Or(err, e)
	if len(ids) == 0 {
		ids = []string{"~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519"} // the order of ssh(1)
	}
	for _, f := range ids {
		if f != "none" {
			s.Identities = append(s.Identities, x.expand(f))
		}
	}
	switch agent := x.expand(get("IdentityAgent")); {
	case agent == "none":
	case agent == "" || agent == "SSH_AUTH_SOCK":
		s.AgentSocket = env("SSH_AUTH_SOCK")
	case strings.HasPrefix(agent, "$"):
		s.AgentSocket = env(agent[1:])
	default:
		s.AgentSocket = agent
	}
	s.Compared = "ssh "
	if c.Port != 22 {
		s.Compared += fmt.Sprintf("-p %d ", c.Port)
	}
	s.Compared += c.User + "@" + alias
	return err
}

// sshTokens are what ssh_config(5), TOKENS, allows in the options that are read.
type sshTokens struct {
	home, alias, host, user, localUser string
	port                               uint16
}

func (x *sshTokens) expand(s string) string {
	if rest, ok := strings.CutPrefix(s, "~/"); ok {
		s = filepath.Join(x.home, rest)
	}
	return strings.NewReplacer("%%", "%", "%d", x.home, "%h", x.host, "%n", x.alias, "%k", x.host,
		"%r", x.user, "%u", x.localUser, "%p", strconv.Itoa(int(x.port))).Replace(s)
}
