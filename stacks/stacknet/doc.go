// SPDX-License-Identifier: Apache-2.0

// Package stacknet puts Go's net.Conn, net.Listener and net.PacketConn on any
// [stacks.Stack], for what umrun itself has to say on a view's network: the DNS
// stub asks name servers by it, `umrun check` pings, and Go programs that embed a
// view can talk from inside.
//
// Sockets of a stack never block; a connection here tries, and waits for the
// socket's Watch callback to wake it. It has no goroutines.
package stacknet
