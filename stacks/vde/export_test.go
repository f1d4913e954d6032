// SPDX-License-Identifier: Apache-2.0

// What tests see of the package's inside.

package vde

import "testing"

// EncodeRequest encodes a request.
func EncodeRequest(t testing.TB, path string, port int) []byte {
	b, err := (&request{path: path, port: port, descr: "test"}).encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
