// SPDX-License-Identifier: Apache-2.0

// The root command: flags of a run, the usage text, the tree of subcommands.

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"umrun/view"
)

// flags is what the command line of a run says.
type flags struct {
	nets    []string
	routes  []string
	dns     string
	dbus    string
	wait    time.Duration
	noWait  bool
	waitAll bool
	backend string
	verbose bool
	quiet   bool
	logFile string
	traps   string
	noProc  bool
	publish []string
	mounts  []string
	engine  string
	hosts   []string
	host    string
	name    string
	all     bool
	pcap    string
	flows   string
	dryRun  bool
}

// define adds the flags that work, and those that are reserved, to fs.
func (f *flags) define(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.SetInterspersed(false) // flags after the program are the program's
	fs.StringArrayVarP(&f.nets, "net", "n", nil, "network `SPEC`: FILE.conf, nat, none, tap:NAME, vde:DIR, socks5://HOST:PORT, or a profile; see above")
	fs.StringArrayVar(&f.routes, "route", nil, "`PATTERN=NAME` sends a prefix, *.domain, :port, exe=GLOB or uid=USER to the network NAME; @FILE is a list")
	fs.StringVar(&f.dns, "dns", "tunnel", "`WHO` answers names: tunnel, the address of a server in it, https://HOST/PATH, or none")
	fs.StringVar(&f.dbus, "dbus", "none", "the system bus `WHICH` programs see: none or host")
	fs.DurationVar(&f.wait, "wait", 10*time.Second, "wait so long for the network to be up")
	fs.BoolVar(&f.noWait, "no-wait", false, "start the program at once")
	fs.BoolVar(&f.waitAll, "wait-all", false, "wait until the last descendant has ended, not only the program")
	fs.StringVar(&f.backend, "backend", "auto", "`HOW` calls are intercepted: auto or notify")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "say what was started, and more in the log")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "errors only, no warnings")
	fs.StringVar(&f.logFile, "log", "", "append the log to `FILE`")
	fs.BoolVar(&f.noProc, "no-proc", false, "leave the program the host's /proc/net and /sys/class/net, and its opens alone")
	fs.StringArrayVarP(&f.publish, "publish", "p", nil, "open a port of the view on the host: `[HOSTADDR:]HOSTPORT[:PORT][/udp]`; without HOSTADDR at all its addresses")
	fs.BoolVar(&f.all, "publish-all", false, "open every port that the program listens on")
	fs.StringArrayVarP(&f.mounts, "mount", "m", nil, "a view of files of its own, `SPEC`: bind:SRC:DST[:ro], tmpfs:DST, cow:[UPPER]:DST, hide:PATH...; see above")
	fs.StringVar(&f.engine, "fs-engine", "auto", "`WHO` makes the mounts: ns (the kernel), trap (umrun itself) or auto")
	fs.StringArrayVar(&f.hosts, "hosts", nil, "`NAME=IP` in the view's /etc/hosts")
	fs.StringVar(&f.host, "hostname", "", "`NAME` of the machine, as the program sees it")
	fs.StringVar(&f.name, "name", "", "`NAME` of the view, by which umrun ps and umrun set know it")
	fs.StringVar(&f.pcap, "pcap", "", "write the packets of all networks to `FILE` (pcapng); a network's own: the key pcap=FILE")
	fs.StringVar(&f.flows, "flows", "", "write a line of JSON to `FILE` when a flow begins, and one when it ends")
	fs.StringVar(&f.traps, "traps", "", "write to `FILE`, at the end, how many calls were trapped and what time they took")
	fs.BoolVar(&f.dryRun, "dry-run", false, "print the plan as JSON and run nothing")
	defineReserved(fs)
}

const usageText = `umrun - run a program on a network of its own

  umrun [flags] [--] PROGRAM [ARG...]
  umrun COMMAND ...

  umrun -n office.conf -- firefox      firefox in the WireGuard tunnel of office.conf
  umrun -n nat -- ssh host             own address, NAT to the host's network
  umrun -n none -- make test           no network but its own loopback
  umrun -n vpn=a.conf -n lan=nat --route '*.lan.example=lan' -- curl wiki.lan.example
  umrun -n nat -p 8080:80 -- nginx     port 8080 of this host is port 80 of nginx
  umrun check office.conf              does the tunnel work?

Networks (-n):
  FILE.conf   WireGuard inside the process, from a wg-quick file (wg:FILE for other names)
  nat         own address 10.0.2.15, NAT to the host; nat,host-loopback: 10.0.2.2 is this host
  none        loopback only
  tap:NAME    a TAP device, yours or new: tap:tap0,ip=192.0.2.7/24,gw=192.0.2.1   tun:NAME  a TUN device
  netns:PATH  a network namespace, as /run/netns/NAME
  host        the host's own network; the doors to its daemons stay shut
  vde:DIR     a VDE switch, or a URL of vdeplug: vde://DIR[PORT] switch://DIR hub://DIR ptp://PATH udp://PORT->HOST:PORT
              vxvde:// vxlan:// 'cmd://ssh HOST vde_plug' vlan://N{URL} slirp:// tap://NAME; all with ip= and gw=
  socks5://[USER@]HOST:PORT   http://[USER@]HOST:PORT   ssh:[USER@]HOST[:PORT]
              through a proxy, which resolves names; auth=FILE: user and password
  tun-provider:'COMMAND ARG...'   what a VPN client brings: openvpn, openconnect, wireguard-go
  NAME        $XDG_CONFIG_HOME/umrun/profiles/NAME.conf
              or configured by the network: dhcp dhcp6 slaac rd auto fqdn=NAME mac=ADDRESS
  -n A=SPEC -n B=SPEC   several at once: each prefix goes to the network that is configured
              with it, the rest to the first; --route says more
  Keys follow with commas: mtu= cc=reno|cubic rcvbuf= sndbuf= dns= domain=
  stack=netstack|kernel|auto  TCP/IP of umrun's own, that of the kernel in a namespace
                              (faster; wants user namespaces and /dev/net/tun), or what works
  and a bad network to try a program on: rate=10mbit delay=20ms jitter=5ms loss=0.5%  (each way)
  Without -n: the profile "default" if there is one, else nat.

Files (-m, repeatable):
  bind:SRC:DST[:ro]  SRC, a directory or file, at DST     tmpfs:DST      an empty directory
  cow:[UPPER]:DST    DST, but what is written goes to UPPER (made if missing), or is thrown away
  merge:SRC:DST      SRC's names before DST's, read-only  hide:PATH      nobody may look into it
  file:SRC:DST       a copy of SRC, the program's own
  image:FILE:DST     what is in an image: squashfs, ext4, FAT, iso9660, zip, tar; ext4 with :rw is written to
  fuse:COMMAND:DST   what an unmodified FUSE file system serves: 'fuse:sshfs box::/mnt'
  dev:null:PATH  dev:zero:PATH  dev:tun:PATH  dev:ramdisk:PATH,size=N

Commands:
  ps             the views that have a name (--name), and are this user's
  set NAME mount SPEC            a mount in a running view, as -m has it
  set NAME umount [--lazy] PATH  the other way round
  check SPEC...  parse, and try each network: handshake, DNS, MTU
  doctor         what this machine allows and lacks, and how to mend it
  demo           the main job on this machine alone
  version        versions of umrun and of what it is made of
  completion     a completion script for bash, zsh or fish
  help           this text, or that of a command

The exit status is the program's own, or 128+N if signal N ended it; 125 umrun
failed, 126 not executable, 127 not found, 120 the network was not up in time,
122 bad flag or configuration, 123 this machine cannot. Flags can be set in the
environment: UMRUN_NET for --net, and so on.

Flags:
`

// newRoot builds the tree of commands.
func newRoot() *cobra.Command {
	var f flags
	root := &cobra.Command{
		Use:               "umrun [flags] [--] PROGRAM [ARG...]",
		Version:           "(devel)", // makes cobra define --version; printed by versionText
		Args:              cobra.ArbitraryArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(c *cobra.Command, args []string) error {
			if err := refuseEmpty(c.Flags()); err != nil {
				return err
			}
			if err := fromEnv(c.Flags()); err != nil {
				return err
			}
			if err := refuseReserved(c.Flags()); err != nil {
				return err
			}
			if f.noWait && c.Flags().Changed("wait") {
				return &view.Problem{Code: view.ExitConfig, What: "--wait and --no-wait do not go together", Try: []string{"one of the two"}}
			}
			return f.run(c.Context(), args, c.OutOrStdout())
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	f.define(root.Flags())
	root.SetVersionTemplate(versionText())
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(c *cobra.Command, _ []string) {
		if c != root {
			fmt.Fprintf(c.OutOrStdout(), "%s\n\n  %s\n", c.Short, c.UseLine())
			if u := c.LocalFlags().FlagUsages(); u != "" {
				fmt.Fprintf(c.OutOrStdout(), "\n%s", u)
			}
			return
		}
		fmt.Fprint(c.OutOrStdout(), usageText+c.LocalFlags().FlagUsages()+reservedText())
	})
	root.SetHelpCommand(newHelp(root))
	root.AddCommand(newCheck(), newDoctor(), newVersion(), newCompletion(root), newDemo(), newDemoPeer(), newPS(), newSet())
	root.AddCommand(newReserved()...)
	root.InitDefaultHelpCmd()
	_ = root.RegisterFlagCompletionFunc("net", completeNet)
	for name, words := range map[string][]string{
		"fs-engine": {"auto", "ns", "trap"}, "dbus": {"none", "host"}, "backend": {"auto", "notify"}, "dns": {"tunnel", "none"},
	} {
		_ = root.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
	}
	return root
}

// noArgs is for commands that take flags alone. cobra's own takes a word for a command.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("accepts no arguments, and there is %q", args[0])
	}
	return nil
}

// newHelp is `umrun help [COMMAND]`.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "how umrun, or one of its commands, is used",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return root.Help()
			}
			for _, sub := range root.Commands() {
				if sub.Name() == args[0] {
					return sub.Help()
				}
			}
			return &view.Problem{Code: view.ExitConfig, What: fmt.Sprintf("there is no command %q", args[0]), Try: []string{"umrun help"}}
		},
	}
}

// newCompletion is `umrun completion SHELL`.
func newCompletion(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "print a completion script",
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(c *cobra.Command, args []string) error {
			switch out := c.OutOrStdout(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			default:
				return root.GenFishCompletion(out, true)
			}
		},
	}
}

// flagError words what pflag found: status 122, with a suggestion for a flag that
// does not exist.
func flagError(c *cobra.Command, err error) error {
	p := &view.Problem{Code: view.ExitConfig, What: err.Error(), Try: []string{helpOf(c)}, Err: err}
	if text := badValue(err); text != "" {
		p.What = text
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1 {
		var known []string
		c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if s, ok := view.Suggest(unknown.GetSpecifiedName(), known); ok {
			p.What += fmt.Sprintf(" (did you mean --%s?)", s)
		}
	}
	return p
}

// badValue words what is wrong with the value of a flag; "" if err is about something else.
func badValue(err error) string {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return ""
	}
	switch bad.GetFlag().Value.Type() {
	case "duration":
		return fmt.Sprintf("--%s %q: it is a time, as in 10s, 500ms or 2m", bad.GetFlag().Name, bad.GetValue())
	case "bool":
		return fmt.Sprintf("--%s=%s: it is true or false", bad.GetFlag().Name, bad.GetValue())
	}
	return ""
}

// refuseEmpty returns the error for a flag whose value is empty: of an unset variable
// (--flows "$FILE") nothing would be said, and nothing done.
func refuseEmpty(fs *pflag.FlagSet) (err error) {
	fs.Visit(func(f *pflag.Flag) {
		if err == nil && f.Value.Type() == "string" && f.Value.String() == "" {
			err = badFlag("--%s: its value is empty", f.Name)
		}
	})
	return err
}

// helpOf is where a command is explained.
func helpOf(c *cobra.Command) string {
	if c.HasParent() {
		return "umrun help " + c.Name()
	}
	return "umrun --help"
}

// execute runs the command line args and returns the exit status.
func execute(ctx context.Context, args []string) error {
	root, out := newRoot(), new(output)
	root.SetOut(out)
	args, err := settle(root, args)
	if err != nil {
		return err
	}
	root.SetArgs(args)
	if err = root.ExecuteContext(ctx); err == nil {
		err = out.problem()
	}
	var p *view.Problem
	var st exitStatus
	if err != nil && !errors.As(err, &p) && !errors.As(err, &st) && isUsage(err) {
		c, _, _ := root.Find(args)
		return &view.Problem{Code: view.ExitConfig, What: err.Error(), Try: []string{helpOf(c)}, Err: err}
	}
	return err
}

// isUsage tells cobra's complaints about arguments, which have no type, from
// errors of running.
func isUsage(err error) bool {
	for _, s := range []string{"accepts ", "invalid argument ", "unknown command ", "requires "} {
		if strings.HasPrefix(err.Error(), s) {
			return true
		}
	}
	return false
}
