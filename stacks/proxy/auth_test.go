// SPDX-License-Identifier: Apache-2.0

// The file with user name and password, and who must not see what is in it.

package proxy

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadAuth(t *testing.T) {
	for _, tt := range []struct {
		text, user string
		name, pw   string
		bad        bool
	}{
		{text: "me\nswordfish\n", name: "me", pw: "swordfish"},
		{text: "me\r\nsword:fish\r\n", name: "me", pw: "sword:fish"},
		{text: "me:sword:fish", name: "me", pw: "sword:fish"},
		{text: "swordfish\n", user: "me", name: "me", pw: "swordfish"},
		{text: "me\nswordfish\n", user: "me", name: "me", pw: "swordfish"},
		{text: "me\nswordfish\n", user: "you", bad: true},
		{text: "swordfish\n", bad: true},
		{text: "", bad: true},
		{text: "me\nswordfish\nthree\n", bad: true},
	} {
		file := filepath.Join(t.TempDir(), "auth")
		for _, mode := range []os.FileMode{0o600, 0o644} {
			if err := os.WriteFile(file, []byte(tt.text), mode); err != nil {
				t.Fatal(err)
			}
			os.Chmod(file, mode)
			name, pw, open, err := ReadAuth(file, tt.user)
			if name != tt.name || string(pw) != tt.pw || (err != nil) != tt.bad || open != (mode == 0o644) {
				t.Errorf("%q for %q: %q, %q, open %v, %v", tt.text, tt.user, name, string(pw), open, err)
			}
			if err != nil && strings.Contains(err.Error(), "swordfish") {
				t.Errorf("the password is in %q", err)
			}
		}
	}
	if _, _, _, err := ReadAuth("/nonexistent", ""); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// TestSecret: however it is printed.
func TestSecret(t *testing.T) {
	c := Config{Password: "swordfish"}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "conf", c, "pw", c.Password)
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		b.WriteString(fmt.Sprintf(f, c) + fmt.Sprintf(f, c.Password))
	}
	if s := b.String(); strings.Contains(s, "swordfish") || strings.Contains(s, fmt.Sprintf("%x", "swordfish")) {
		t.Error(s)
	}
}
