// SPDX-License-Identifier: Apache-2.0

// Trials: one receiver or two.

package intercept

import "time"

// A trial finds out whether two receivers are faster than one when many threads call. It depends
// on what it takes to wake a thread on another processor, which differs between machines, and on
// a virtual one from one minute to the next: by more than twice on ours (docs/bench.md).
type trial struct {
	stage   trialStage
	windows int              // in this stage
	calls   [2]int           // that one receiver had, and two
	took    [2]time.Duration // them
}

type trialStage int

const (
	withTwo trialStage = iota
	withOne
	twoAreBetter
	oneIsBetter
)

// How many times calls are judged in each stage; the first time of a stage does not count.
var trialWindows = [...]int{withTwo: 8, withOne: 5, twoAreBetter: 512, oneIsBetter: 512}

// two adds what was judged, and reports whether there are to be two.
func (t *trial) two(two bool, calls int, took time.Duration) bool {
	i := 0
	if two {
		i = 1
	}
	if want := t.stage == withTwo || t.stage == twoAreBetter; want != two {
		return want
	}
	if t.windows++; t.windows > 1 {
		t.calls[i] += calls
		t.took[i] += took
	}
	if t.windows >= trialWindows[t.stage] {
		t.next()
	}
	return t.stage == withTwo || t.stage == twoAreBetter
}

// next goes to the next stage.
func (t *trial) next() {
	t.windows = 0
	switch {
	case t.stage == withTwo:
		t.stage = withOne
	case t.stage != withOne:
		*t = trial{}
	case float64(t.took[0])*float64(t.calls[1]) < float64(t.took[1])*float64(t.calls[0]):
		t.stage = oneIsBetter
	default:
		t.stage = twoAreBetter
	}
}
