// SPDX-License-Identifier: Apache-2.0

// Tests of umrun ps.

package main

import (
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"umrun/view/control"
)

// TestListViews: a view that is stopped keeps nobody from seeing the others.
func TestListViews(t *testing.T) {
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	s, err := control.Serve("zoo", slog.New(slog.DiscardHandler), func(control.Request) control.Answer {
		return control.Answer{View: &control.View{Name: "zoo"}}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := net.Listen("unix", filepath.Join(run, "umrun", "ape"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	views, silent, err := listViews(t.Context())
	if err != nil || len(views) != 1 || views[0].Name != "zoo" {
		t.Errorf("%v, %v", views, err)
	}
	if silent == nil || !strings.HasPrefix(silent.Error(), "the view ape has not answered") {
		t.Errorf("the silent one: %v", silent)
	}
	if took := time.Since(began); took > listing+10*time.Second {
		t.Errorf("it took %v", took)
	}
}
