// SPDX-License-Identifier: Apache-2.0

// Tests of the wg-quick reader: every file of testdata/conf says itself what it
// wants, in comments.

package wg

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// confFiles returns the files of testdata/conf/DIR, at least least of them.
func confFiles(t *testing.T, dir string, least int) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../../testdata/conf", dir, "*.conf"))
	if err != nil || len(files) < least {
		t.Fatalf("%d files in testdata/conf/%s (%v), want %d or more", len(files), dir, err, least)
	}
	return files
}

// wants returns what follows "# want: " in the lines of a file.
func wants(data []byte) []string {
	var ws []string
	for line := range strings.Lines(string(data)) {
		if w, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "# want: "); ok {
			ws = append(ws, w)
		}
	}
	return ws
}

// summary writes what matters in a configuration, in the words of the files.
func summary(c *Config, ws []Warning) []string {
	var s []string
	add := func(word string, values ...any) {
		if len(values) > 0 {
			s = append(s, strings.TrimSuffix(word+" "+fmt.Sprintln(values...), "\n"))
		}
	}
	anys := func(n int, at func(i int) any) []any {
		var as []any
		for i := range n {
			as = append(as, at(i))
		}
		return as
	}
	i, d := c.Interface(2, "wg0"), c.Resolvers()
	add("addr", anys(len(i.Addrs), func(j int) any { return i.Addrs[j] })...)
	add("dns", anys(len(d.Servers), func(j int) any { return d.Servers[j] })...)
	add("search", anys(len(d.Search), func(j int) any { return d.Search[j] })...)
	add("mtu", i.MTU)
	if c.ListenPort != 0 {
		add("port", c.ListenPort)
	}
	for _, r := range c.Routes(2) {
		add("route", r.Dst)
	}
	for _, p := range c.Peers {
		v := []any{p.PublicKey}
		if !p.PresharedKey.IsZero() {
			v = append(v, "psk")
		}
		if !p.Endpoint.IsZero() {
			v = append(v, "endpoint", p.Endpoint)
		}
		if p.Keepalive != 0 {
			v = append(v, "keepalive", p.Keepalive)
		}
		if len(p.AllowedIPs) > 0 {
			v = append(v, "allowed")
			v = append(v, anys(len(p.AllowedIPs), func(j int) any { return p.AllowedIPs[j] })...)
		}
		add("peer", v...)
	}
	for _, w := range ws {
		add(fmt.Sprintf("warning %d:", w.Line), w.Msg)
	}
	return s
}

func TestGoodConfigs(t *testing.T) {
	for _, file := range confFiles(t, "good", 10) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, ws, err := ParseConfig(filepath.Base(file), bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wants(data), summary(c, ws)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestBadConfigs(t *testing.T) {
	for _, file := range confFiles(t, "bad", 30) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, ws := filepath.Base(file), wants(data)
			if len(ws) != 1 {
				t.Fatalf("%d want comments, need one", len(ws))
			}
			_, _, err = ParseConfig(name, bytes.NewReader(data))
			var ce *ConfigError
			if !errors.As(err, &ce) {
				t.Fatalf("error %v, want a ConfigError", err)
			}
			want := name + ":" + ws[0] // "LINE: message"
			if ce.Line == 0 {
				want = name + ": " + ws[0]
			}
			if got := err.Error(); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestReadConfigMode(t *testing.T) {
	good, err := os.ReadFile("../../testdata/conf/good/minimal.conf")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		mode os.FileMode
		want bool
	}{{0o600, false}, {0o400, false}, {0o640, true}, {0o644, true}, {0o604, true}}
	for _, tt := range tests {
		file := filepath.Join(t.TempDir(), "wg0.conf")
		if err := os.WriteFile(file, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, ws, err := ReadConfig(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(ws) == 1; got != tt.want {
			t.Errorf("mode %o: warnings %v, want one: %v", tt.mode, ws, tt.want)
		}
		for _, w := range ws {
			want := fmt.Sprintf("%s: others may read the keys in it (mode %04o); try: chmod 600 %[1]s", file, tt.mode)
			if w.String() != want {
				t.Errorf("warning %q, want %q", w, want)
			}
		}
	}
	if _, _, err := ReadConfig("/nonexistent/wg0.conf"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestSecretsStayHidden prints a configuration in every way there is.
func TestSecretsStayHidden(t *testing.T) {
	c, _, err := ReadConfig("../../testdata/conf/good/full.conf")
	if err != nil {
		t.Fatal(err)
	}
	holder := struct{ c *Config }{c} // unexported: fmt cannot ask for methods
	inside := struct{ peers []Peer }{c.Peers}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p"} {
		fmt.Fprintf(&out, verb+"\n", c.PrivateKey)
		fmt.Fprintf(&out, verb+"\n", c)
		fmt.Fprintf(&out, verb+"\n", *c)
		fmt.Fprintf(&out, verb+"\n", holder)
		fmt.Fprintf(&out, verb+"\n", inside)
	}
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "key", c.PrivateKey, "conf", c, "peer", c.Peers[0])
	}
	for _, s := range []Secret{c.PrivateKey, c.Peers[0].PresharedKey} {
		spellings := []string{s.Reveal(), s.hex(), strings.ToUpper(s.hex()), fmt.Sprint(s.bytes()), strings.Trim(fmt.Sprintf("%#v", s.bytes()), "[]byte{}")}
		for _, secret := range spellings {
			if len(secret) < 40 {
				t.Fatalf("test is wrong: spelling %q", secret)
			}
			if strings.Contains(out.String(), secret) {
				t.Errorf("a secret was printed as %.8s...", secret)
			}
		}
	}
	if !strings.Contains(out.String(), hidden) {
		t.Error("nothing was hidden: the test does not print secrets")
	}
}

func TestKeys(t *testing.T) {
	k, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParsePublicKey(k.Public().String()); err != nil || got != k.Public() {
		t.Errorf("ParsePublicKey(String) = %v, %v", got, err)
	}
	back, err := parseKey(k.Reveal())
	if err != nil || !k.Equal(secret(&back)) {
		t.Errorf("parseKey(Reveal): %v", err)
	}
	if k.Equal(NewPresharedKey()) || k.Equal(Secret{}) || !(Secret{}).Equal(Secret{}) {
		t.Error("Equal is wrong")
	}
}

// FuzzParseConfig looks for panics, and for secrets in messages.
func FuzzParseConfig(f *testing.F) {
	for _, dir := range []string{"good", "bad"} {
		files, _ := filepath.Glob(filepath.Join("../../testdata/conf", dir, "*.conf"))
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, ws, err := ParseConfig("f.conf", bytes.NewReader(data))
		if err != nil {
			var ce *ConfigError
			if !errors.As(err, &ce) || ce.File != "f.conf" || ce.Msg == "" {
				t.Fatalf("not a ConfigError: %v", err)
			}
			if strings.ContainsAny(ce.Msg, "\n\r\x1b") {
				t.Fatalf("control characters in %q", ce.Msg)
			}
			return
		}
		if c.PrivateKey.IsZero() || len(c.Peers) == 0 {
			t.Fatalf("accepted without key or peer: %+v", c)
		}
		if text := fmt.Sprintf("%+v %v", c, ws); strings.Contains(text, c.PrivateKey.Reveal()) {
			t.Fatal("private key printed")
		}
	})
}

func TestReadError(t *testing.T) {
	want := errors.New("broken disk")
	if _, _, err := ParseConfig("x", io.MultiReader(strings.NewReader("[Interface]\n"), errReader{want})); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
