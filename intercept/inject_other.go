// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

// Injection, where it is not built.

package intercept

const canInject = false

type injector struct {
	n         *notifier
	c         *Call
	tid, tgid int
}

func (*injector) seize() error        { return ErrNotInjected }
func (*injector) do(*Injection) error { return ErrNotInjected }
func (*injector) letGo()              {}
