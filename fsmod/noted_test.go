// SPDX-License-Identifier: Apache-2.0

// Which calls change no id.

package fsmod

import "testing"

func TestAllAre(t *testing.T) {
	const none = 0xffffffff
	tests := []struct {
		name string
		now  [4]uint32
		args []uint64
		bits int
		want bool
	}{
		{"what is", [4]uint32{}, []uint64{0, 0, 0}, 32, true},
		{"none", [4]uint32{}, []uint64{none, 0, none}, 32, true},
		{"all 64 bits of none", [4]uint32{7, 7, 7, 7}, []uint64{1<<64 - 1}, 32, true},
		{"the upper half is nothing", [4]uint32{}, []uint64{1 << 32}, 32, true},
		{"and hides nothing", [4]uint32{}, []uint64{1<<32 + 1}, 32, false},
		{"another", [4]uint32{}, []uint64{0, 0, 1000}, 32, false},
		{"the real one is another", [4]uint32{1000, 0, 0, 0}, []uint64{0}, 32, false},
		{"the real one is another, and stays", [4]uint32{1000, 0, 0, 0}, []uint64{none, none}, 32, false},
		{"that of the file system is another", [4]uint32{0, 0, 0, 1000}, []uint64{none, 0, none}, 32, false},
		{"16 bits", [4]uint32{}, []uint64{0, 0}, 16, true},
		{"none of 16 bits", [4]uint32{}, []uint64{0xffff, 0}, 16, true},
		{"no none of 32 bits", [4]uint32{}, []uint64{0xffff}, 32, false},
		{"what 16 bits cannot say", [4]uint32{65536, 65536, 65536, 65536}, []uint64{0}, 16, false},
		{"another of 16 bits", [4]uint32{}, []uint64{1}, 16, false},
	}
	for _, tt := range tests {
		if got := allAre(tt.now, tt.args, tt.bits); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
