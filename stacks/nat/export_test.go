// SPDX-License-Identifier: Apache-2.0

// What the tests of the outside may know of the inside.

package nat

// Retransmits returns the segments that the private stack had to send again. On
// this link there should be none.
func (l *Link) Retransmits() uint64 { return l.stack.Stats().TCP.Retransmits.Value() }
