// SPDX-License-Identifier: Apache-2.0

// Tests of Check against a peer that works.

package view_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"umrun/stacks/wg"
	"umrun/view"
	"umrun/view/demo"
)

func TestCheck(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	key, err := wg.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := demo.StartPeer(ctx, key.Public(), 80)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	file := filepath.Join(t.TempDir(), "demo.conf")
	conf := fmt.Sprintf("[Interface]\nPrivateKey = %s\nAddress = %s/32\nDNS = %s\n[Peer]\nPublicKey = %s\nAllowedIPs = %s\nEndpoint = 127.0.0.1:%d\n",
		key.Reveal(), demo.Client4, demo.Peer4, peer.PublicKey, demo.Net4, peer.Port)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := view.ParseNetwork(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = view.Check(ctx, view.Config{
		Networks: []view.Network{n},
		Wait:     10 * time.Second,
		Log:      slog.New(slog.DiscardHandler),
	}, func(f view.Finding) {
		t.Logf("%s %s: %s", f.Verdict, f.Name, f.Text)
		got = append(got, fmt.Sprintf("%s %s", f.Verdict, f.Name))
	})
	if err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"ok config", "ok handshake", "ok dns", "ok mtu"}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
