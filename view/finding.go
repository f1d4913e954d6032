// SPDX-License-Identifier: Apache-2.0

// Finding: one line of what doctor and check say.

package view

// A Verdict is how a Finding was judged.
type Verdict string

// The verdicts. Only Fail keeps a view from running, or a network from working.
const (
	OK   Verdict = "ok"
	Note Verdict = "note" // something works otherwise than it might, or less well
	Fail Verdict = "fail"
)

// A Finding is the outcome of one named test. Names and the JSON form are stable.
type Finding struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`
	Mend    string  `json:"mend,omitempty"` // what to do about it
}
