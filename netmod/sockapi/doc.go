// SPDX-License-Identifier: Apache-2.0

// Package sockapi says which part of Linux's socket API a program of a view gets:
// calls, kinds of sockets, options by level, flags, control messages and ioctls,
// as tables. It holds no code that serves them.
//
// docs/compatibility.md and the table that the walk of testdata/targets/sockopt.c
// compiles in are written from here:
//
//	go generate ./netmod/sockapi
//
// A test fails when either is stale, and when a header of the kernel has an option
// that no row names. The walk tries every option on every kind of socket that its
// row names, on the kernel's stack and under umrun, and compares step by step
// (view/viewtest, TestIntegrationTranscripts): a row that claims more than is done
// fails there, and so does one that claims less.
//
// # To add an option
//
// Add or change its row, give On the kinds of sockets that the walk is to try it
// on, generate, and run the walk.
package sockapi

//go:generate go run ./gen
