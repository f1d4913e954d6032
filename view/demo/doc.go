// SPDX-License-Identifier: Apache-2.0

// Package demo is the far end of `umrun demo`: a WireGuard peer, and behind it a
// web page that tells the visitor's address and a name server that knows the page.
// All of it lives in one process; only the tunnel's UDP packets leave it, to
// another process of the same machine.
//
//	umrun -n demo.conf -- curl           peer process
//	curl -> netstack -> WireGuard  ===>  WireGuard -> netstack -> web page, name server
//	                    UDP on 127.0.0.1
package demo
