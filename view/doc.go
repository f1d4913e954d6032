// SPDX-License-Identifier: Apache-2.0

// Package view builds a view and runs a program in it: it is the only place that
// knows every part, and the API for programs that want a view without the umrun
// command.
package view
