// SPDX-License-Identifier: Apache-2.0

// Suggestions for words that are not known.

package view

import "fmt"

// Suggest returns the word of known that is nearest to got, if it is near enough
// to be what was meant.
func Suggest(got string, known []string) (string, bool) {
	best, dist := "", len(got)/3+2 // a third of the letters may be wrong
	for _, k := range known {
		if d := editDistance(got, k); d < dist {
			best, dist = k, d
		}
	}
	return best, best != ""
}

// didYouMean is the tail of an error message: ` (did you mean "mtu"?)` or nothing.
func didYouMean(got string, known []string) string {
	if s, ok := Suggest(got, known); ok {
		return fmt.Sprintf(" (did you mean %q?)", s)
	}
	return ""
}

// editDistance counts the insertions, removals, replacements and swaps of
// neighbours between a and b (optimal string alignment).
func editDistance(a, b string) int {
	prev, cur := make([]int, len(b)+1), make([]int, len(b)+1)
	var before []int // the row above prev
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, make([]int, len(b)+1)
	}
	return prev[len(b)]
}
