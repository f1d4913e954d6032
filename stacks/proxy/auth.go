// SPDX-License-Identifier: Apache-2.0

// The file with user name and password.

package proxy

import (
	"bufio"
	"errors"
	"os"
	"strings"
)

// ReadAuth reads a user name and a password: on a line each, or on one line with a
// colon between them. One line without a colon is a password, for user. A name in
// the file must be user if that is not empty. open tells that others than the
// owner may read or write the file. What stands in it is in no error.
func ReadAuth(name, user string) (found string, pw Secret, open bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", "", false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", "", false, err
	}
	open = st.Mode().Perm()&0o077 != 0
	var lines []string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if l := strings.TrimSuffix(sc.Text(), "\r"); l != "" {
			lines = append(lines, l)
		}
	}
	if err := sc.Err(); err != nil {
		return "", "", open, err
	}
	switch len(lines) {
	case 1:
		before, after, colon := strings.Cut(lines[0], ":")
		switch {
		case colon:
			found, pw = before, Secret(after)
		case user != "":
			found, pw = user, Secret(before)
		default:
			return "", "", open, errors.New("there is no user name in it: write user name and password, on a line each")
		}
	case 2:
		found, pw = lines[0], Secret(lines[1])
	default:
		return "", "", open, errors.New("it holds a user name and a password, on a line each, and nothing else")
	}
	if user != "" && found != user {
		return "", "", open, errors.New("the user name in it is not the one before the @")
	}
	return found, pw, open, nil
}
