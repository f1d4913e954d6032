// SPDX-License-Identifier: Apache-2.0

// Devices in a plan.

package view

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"umrun/fsmod"
)

func TestPlanDevices(t *testing.T) {
	tun := fsmod.Mount{Kind: fsmod.Dev, Source: fsmod.TUN, Target: "/dev/net/tun"}
	disk := fsmod.Mount{Kind: fsmod.Dev, Source: fsmod.Ramdisk, Target: "/dev/rd0", Size: 1 << 20}
	odd := disk
	odd.Size = 1000
	for _, tc := range []struct {
		name   string
		specs  string
		mounts []fsmod.Mount
		want   string // of the error; empty: none
	}{
		{"both", "nat", []fsmod.Mount{tun, disk}, ""},
		{"disks need no stack", "host", []fsmod.Mount{disk}, ""},
		{"several networks", "nat none", []fsmod.Mount{tun}, "several networks"},
		{"no stack of ours", "host", []fsmod.Mount{tun}, "takes a userspace stack"},
		{"odd size", "nat", []fsmod.Mount{odd}, "multiple of 512"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conf := Config{Argv: []string{"true"}, Mounts: tc.mounts, Log: slog.New(slog.DiscardHandler)}
			for _, s := range strings.Fields(tc.specs) {
				n, err := ParseNetwork(s)
				if err != nil {
					t.Fatal(err)
				}
				conf.Networks = append(conf.Networks, n)
			}
			p, err := MakePlan(conf)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []fsmod.Mount
			for _, d := range p.Devices {
				got = append(got, fsmod.Mount(d))
			}
			if d := cmp.Diff(tc.mounts, got); d != "" {
				t.Errorf("devices (-want +got):\n%s", d)
			}
			if p.Files != nil {
				t.Errorf("an engine is asked for: %+v", p.Files)
			}
		})
	}
}
