// SPDX-License-Identifier: Apache-2.0

// A VPN client as a network: the client is a program of its own, whose TUN device is
// the view's interface.

package view

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"umrun/stacks"
)

// providerNetwork is the network that a command brings. See [provider] for how.
type providerNetwork struct{ Network }

func newProvider(n Network) (*providerNetwork, error) {
	if strings.TrimSpace(n.Target) == "" {
		return nil, badConfig("-n %s: there is no command: write it as -n NAME=tun-provider:'COMMAND ARG...'", n.Spec)
	}
	return &providerNetwork{n}, nil
}

func (t *providerNetwork) describe() (PlanNetwork, []string) {
	return PlanNetwork{Command: t.Target}, nil
}

func (t *providerNetwork) dns() stacks.DNS { return stacks.DNS{} }

// reaches reports nothing: what the command will bring is not known yet.
func (t *providerNetwork) reaches(netip.Addr) bool { return false }

// open opens nothing: the stack has no interface until the command, which start runs,
// makes one.
func (t *providerNetwork) open(context.Context, *slog.Logger) (opened, error) {
	return opened{}, nil
}

// unready words why a provider has brought no network.
func (t *providerNetwork) unready(said *speech, how string) *Problem {
	return &Problem{
		Code: ExitNetwork,
		What: fmt.Sprintf("the network %s is not up: its provider %s", t.Name, how),
		Why:  said.why(),
		Try:  []string{"--log FILE   (everything that it says)"},
	}
}
