// SPDX-License-Identifier: Apache-2.0

// umrun ps and umrun set: running views, by their names.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"umrun/view"
	"umrun/view/control"
)

const (
	// asking bounds a change of a view. A mount may read a whole image.
	asking = time.Minute
	// listing bounds what all views are asked at once. One that is stopped does not answer.
	listing = 3 * time.Second
)

func newPS() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "ps [--json]",
		Short: "the running views that have a name: process, networks, command",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			views, silent, err := listViews(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(c.OutOrStdout(), views)
			} else {
				err = printViews(c.OutOrStdout(), views)
			}
			return errors.Join(err, silent)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON, which is stable")
	return c
}

// listViews asks all views that there are; one that ends meanwhile is left out. silent is the
// error of the first that does not answer, and is left out, too.
func listViews(ctx context.Context) (views []*control.View, silent, err error) {
	ctx, cancel := context.WithTimeout(ctx, listing)
	defer cancel()
	names, err := control.Names()
	if err != nil {
		return nil, nil, err
	}
	answers, errs := make([]control.Answer, len(names)), make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { answers[i], errs[i] = view.AskView(ctx, name, control.Request{Op: control.Info}) })
	}
	all.Wait()
	views = []*control.View{}
	for i, err := range errs {
		switch {
		case err == nil:
			views = append(views, answers[i].View)
		case silent == nil && !errors.Is(err, control.ErrNoView):
			silent = err
		}
	}
	return views, silent, nil
}

// printViews writes the table, which is for people.
func printViews(w io.Writer, views []*control.View) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tPID\tSINCE\tNETWORKS\tCOMMAND")
	for _, v := range views {
		var nets []string
		for _, n := range v.Networks {
			nets = append(nets, strings.Join(append([]string{n.Name}, n.Addresses...), " "))
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%q\n", v.Name, v.PID, v.Since.Local().Format(time.DateTime), strings.Join(nets, "; "), strings.Join(v.Command, " "))
	}
	return t.Flush()
}

func newSet() *cobra.Command {
	var lazy bool
	c := &cobra.Command{
		Use:   "set NAME mount SPEC, or umrun set NAME umount [--lazy] PATH",
		Short: "change a running view: its mounts",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := setRequest(args[1], args[2:], lazy)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), asking)
			defer cancel()
			_, err = view.AskView(ctx, args[0], r)
			return err
		},
	}
	c.Flags().BoolVarP(&lazy, "lazy", "l", false, "take a mount away though it is in use: who uses it keeps what it has")
	return c
}

// setRequest is what `umrun set NAME WHAT ARG...` asks for. Paths are the caller's.
func setRequest(what string, args []string, lazy bool) (r control.Request, err error) {
	bad := func(format string, a ...any) error {
		return &view.Problem{Code: view.ExitConfig, What: fmt.Sprintf(format, a...), Try: []string{"umrun help set"}}
	}
	switch what {
	case "mount", "umount":
	case "net", "route", "rate":
		return r, view.NotBuilt("set NAME " + what)
	default:
		return r, bad("set: %q is nothing that can be changed: mount or umount", what)
	}
	switch {
	case len(args) != 1:
		return r, bad("set NAME %s takes one more word", what)
	case lazy && what == "mount":
		return r, bad("--lazy is for umount")
	}
	if args[0] == "" {
		return r, bad("set NAME %s: the word behind it is empty", what)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return r, &view.Problem{Code: view.ExitFailed, What: fmt.Sprintf("working directory: %v", err), Try: []string{"cd /"}, Err: err}
	}
	if what == "mount" {
		if _, err := view.ParseMount(args[0], cwd); err != nil {
			return r, err
		}
		return control.Request{Op: control.Mount, Spec: control.Text(args[0]), Dir: control.Text(cwd)}, nil
	}
	path := args[0]
	if !filepath.IsAbs(path) {
		path = filepath.Join(cwd, path)
	}
	return control.Request{Op: control.Umount, Path: control.Text(path), Lazy: lazy}, nil
}
