// SPDX-License-Identifier: Apache-2.0

// The keys rate=, delay=, jitter= and loss=: a network made worse than it is.

package view

import (
	"umrun/stacks"
	"umrun/stacks/impair"
)

// A PlanImpairment is what is made worse, as it was written.
type PlanImpairment struct {
	Rate   string `json:"rate,omitempty"`   // each way
	Delay  string `json:"delay,omitempty"`  // each way
	Jitter string `json:"jitter,omitempty"` // of the delay
	Loss   string `json:"loss,omitempty"`   // each way
}

// parsed makes a check of a key's value of what parses it.
func parsed[T any](parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		_, err := parse(s)
		return err
	}
}

// impairment reads the keys; nil if there are none. Their values were checked when
// parsed.
func (n Network) impairment() *PlanImpairment {
	var p PlanImpairment
	p.Rate, _ = n.value("rate")
	p.Delay, _ = n.value("delay")
	p.Jitter, _ = n.value("jitter")
	p.Loss, _ = n.value("loss")
	if p == (PlanImpairment{}) {
		return nil
	}
	return &p
}

// impair puts the impairment of n in front of links.
func (n Network) impair(links []stacks.LinkConfig) {
	p := n.impairment()
	if p == nil {
		return
	}
	var c impair.Config
	c.Rate, _ = impair.ParseRate(p.Rate)
	c.Delay, _ = impair.ParseDelay(p.Delay)
	c.Jitter, _ = impair.ParseDelay(p.Jitter)
	c.Loss, _ = impair.ParseLoss(p.Loss)
	for i := range links {
		links[i].Link = impair.New(links[i].Link, c)
	}
}
