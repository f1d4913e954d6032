// SPDX-License-Identifier: Apache-2.0

// The numbers of interfaces: those of each network, and one sequence for all.

package multihome

import (
	"net/netip"
	"strconv"
)

// loopback is the index of the loopback interface, here and in every stack.
const loopback = 1

// An inside is an interface as its network knows it.
type inside struct{ net, index int }

// numbers map interfaces of networks to the numbers that the view has for them. They
// are not changed once made: new interfaces make new ones.
type numbers struct {
	byInside map[inside]int
	byNumber []inside // from the loopback interface on, which is byNumber[0]
}

// number returns the number of an interface, a new one if it has none. loop is any
// network's loopback interface.
func (s *Stack) number(in inside, loop bool) int {
	if loop {
		return loopback
	}
	if n, ok := s.numbers.Load().byInside[in]; ok {
		return n
	}
	s.numMu.Lock()
	defer s.numMu.Unlock()
	old := s.numbers.Load()
	if n, ok := old.byInside[in]; ok {
		return n
	}
	next := &numbers{byInside: map[inside]int{in: 0}, byNumber: []inside{{0, loopback}}}
	if len(old.byNumber) > 0 {
		next.byNumber = append([]inside(nil), old.byNumber...)
	}
	for k, v := range old.byInside {
		next.byInside[k] = v
	}
	next.byNumber = append(next.byNumber, in)
	next.byInside[in] = len(next.byNumber)
	s.numbers.Store(next)
	return len(next.byNumber)
}

// outer is the number of an interface of a network; 0 is none.
func (s *Stack) outer(net, index int) int {
	switch index {
	case 0, loopback:
		return index
	}
	if n, ok := s.numbers.Load().byInside[inside{net, index}]; ok {
		return n
	}
	return s.number(inside{net, index}, false)
}

// inner is the network and the index there of the interface with a number.
func (s *Stack) inner(number int) (net, index int, ok bool) {
	if number == loopback {
		return 0, loopback, true
	}
	by := s.numbers.Load().byNumber
	if number < 1 || number > len(by) {
		return 0, 0, false
	}
	in := by[number-1]
	return in.net, in.index, true
}

// zoneOf returns the network that an address with a scope belongs to.
func (s *Stack) zoneOf(a netip.Addr) (net int, ok bool) {
	number, err := strconv.Atoi(a.Zone())
	if err != nil {
		return 0, false
	}
	net, _, ok = s.inner(number)
	return net, ok
}

// isLoopZone tells whether a scope names the loopback interface.
func (s *Stack) isLoopZone(a netip.Addr) bool { return a.Zone() == strconv.Itoa(loopback) }

// inward makes the scope of an address that of a network; one that is not of this
// network stays a number that the network does not have.
func (s *Stack) inward(net int, a netip.AddrPort) netip.AddrPort {
	if a.Addr().Zone() == "" {
		return a
	}
	index := -1
	if number, err := strconv.Atoi(a.Addr().Zone()); err == nil {
		if n, i, ok := s.inner(number); ok && (n == net || i == loopback) {
			index = i
		}
	}
	if index < 0 {
		index = noInterface
	}
	return netip.AddrPortFrom(a.Addr().WithZone(strconv.Itoa(index)), a.Port())
}

// noInterface is an index that no interface has.
const noInterface = 1<<31 - 1

// outward is the reverse of inward.
func (s *Stack) outward(net int, a netip.AddrPort) netip.AddrPort {
	if a.Addr().Zone() == "" {
		return a
	}
	index, err := strconv.Atoi(a.Addr().Zone())
	if err != nil {
		return a
	}
	return netip.AddrPortFrom(a.Addr().WithZone(strconv.Itoa(s.outer(net, index))), a.Port())
}
