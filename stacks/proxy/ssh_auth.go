// SPDX-License-Identifier: Apache-2.0

// Who the SSH server is, and who we are to it.

package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

// hostKeys checks host keys against known_hosts files.
type hostKeys struct {
	check ssh.HostKeyCallback
	addr  string // what is looked for
}

func newHostKeys(c *Config) (*hostKeys, error) {
	var files []string
	for _, f := range c.SSH.KnownHosts {
		if _, err := os.Stat(f); err == nil {
			files = append(files, f)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	check, err := knownhosts.New(files...)
	if err != nil {
		return nil, err
	}
	h := &hostKeys{check: check, addr: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))}
	if a := c.SSH.HostKeyAlias; a != "" {
		h.addr = net.JoinHostPort(a, "22")
	}
	return h, nil
}

// anyKey is a key that nobody has.
type anyKey struct{}

func (anyKey) Type() string                        { return "none" }
func (anyKey) Marshal() []byte                     { return nil }
func (anyKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// known returns the keys that are known of the server.
func (h *hostKeys) known() []knownhosts.KnownKey {
	var want *knownhosts.KeyError
	if errors.As(h.check(h.addr, &net.TCPAddr{}, anyKey{}), &want) {
		return want.Want
	}
	return nil
}

// algorithms returns those of the known keys, so that a server that has several
// keys shows one of these; nil: any.
func (h *hostKeys) algorithms() (algos []string) {
	for _, k := range h.known() {
		var of []string
		switch t := k.Key.Type(); t {
		case ssh.KeyAlgoRSA:
			of = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		default:
			of = []string{t}
		}
		for _, a := range of {
			if !slices.Contains(algos, a) {
				algos = append(algos, a)
			}
		}
	}
	return algos
}

// keyError says what is wrong with the host key of u's server.
func keyError(u *Upstream, key ssh.PublicKey, err error) error {
	e := &UnusableError{Proxy: u.String(), Cause: WrongKey, Err: fmt.Errorf("%s %s", key.Type(), ssh.FingerprintSHA256(key))}
	var want *knownhosts.KeyError
	switch {
	case errors.As(err, &want) && len(want.Want) == 0:
		e.Cause = UnknownKey
		e.Hint = "Connect once by hand with `" + u.conf.SSH.Compared + "`, compare this fingerprint with what the server's operator says, and accept it."
	case errors.As(err, &want):
		k := want.Want[0]
		e.Hint = fmt.Sprintf("Somebody may be in between, or the server has a new key. The known one is in %s, line %d.", k.Filename, k.Line)
	default: // revoked, or a certificate that does not hold
		e.Err = fmt.Errorf("%w (%s)", err, ssh.FingerprintSHA256(key))
	}
	return e
}

// methods returns the ways to say who we are, and what must be closed afterwards.
// notes say which keys could not be used, for the case that none is taken.
func (u *Upstream) methods() (methods []ssh.AuthMethod, closer io.Closer, notes []string) {
	conf := &u.conf.SSH
	var signers []ssh.Signer
	closer = io.NopCloser(nil)
	var held []ssh.Signer // the agent's
	if conf.AgentSocket != "" {
		c, err := net.Dial("unix", conf.AgentSocket)
		if err == nil {
			closer = c
			held, err = agent.NewClient(c).Signers()
		}
		if err != nil {
			notes = append(notes, fmt.Sprintf("the agent: %v", err))
		}
	}
	for _, name := range conf.Identities {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var s ssh.Signer
		if err == nil {
			s, err = ssh.ParsePrivateKey(b)
		}
		public := publicHalf(name, err)
		if s != nil {
			public = s.PublicKey()
		}
		i := -1
		if public != nil {
			i = slices.IndexFunc(held, func(h ssh.Signer) bool { return bytes.Equal(h.PublicKey().Marshal(), public.Marshal()) })
		}
		var locked *ssh.PassphraseMissingError
		switch {
		case i >= 0:
			signers = append(signers, held[i])
			held = slices.Delete(held, i, i+1)
		case s != nil:
			signers = append(signers, s)
		case errors.As(err, &locked):
			notes = append(notes, name+" has a passphrase: add it to the agent with ssh-add")
		default:
			notes = append(notes, fmt.Sprintf("%s: %v", name, err))
		}
	}
	if !conf.OnlyThese {
		signers = append(held, signers...) // the agent's first, as ssh(1) does
	}
	if len(signers) > 0 {
		methods = append(methods, ssh.PublicKeys(signers...))
	}
	if pw := string(u.conf.Password); pw != "" {
		methods = append(methods, ssh.Password(pw), ssh.KeyboardInteractive(
			func(_, _ string, questions []string, _ []bool) ([]string, error) {
				answers := make([]string, len(questions))
				if len(questions) == 1 {
					answers[0] = pw
				}
				return answers, nil
			}))
	}
	return methods, closer, notes
}

// publicHalf returns the public key of a private one that has a passphrase: of the
// file itself, or of the one with .pub; nil if there is none.
func publicHalf(name string, err error) ssh.PublicKey {
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) && locked.PublicKey != nil {
		return locked.PublicKey
	}
	b, err := os.ReadFile(name + ".pub")
	if err != nil {
		return nil
	}
	k, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil
	}
	return k
}
