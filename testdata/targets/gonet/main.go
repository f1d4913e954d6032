// SPDX-License-Identifier: Apache-2.0

// Gonet is a static Go program that uses the network as Go programs do: its own
// resolver, the runtime's poller, many goroutines.
//
//	gonet get URL          the body
//	gonet many URL N       N requests at once
//	gonet lookup NAME      addresses, sorted; the status is 1 if there are none
//	gonet tcp NAME         the same, asked over TCP alone
//	gonet txt NAME         how many strings its TXT records have
//	gonet addrs            the interfaces and their addresses
//	gonet serve ADDR       an HTTP server; prints "ready"
//	gonet udp ADDR WORD    one datagram and its answer
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		os.Exit(9)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func run(verb string, args []string) error {
	client := &http.Client{Timeout: 20 * time.Second}
	switch {
	case verb == "get" && len(args) == 1:
		body, err := get(client, args[0])
		fmt.Print(body)
		return err
	case verb == "many" && len(args) == 2:
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return many(client, args[0], n)
	case verb == "lookup" && len(args) == 1:
		return lookup(net.DefaultResolver, args[0])
	case verb == "tcp" && len(args) == 1:
		return lookup(&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}}, args[0])
	case verb == "txt" && len(args) == 1:
		txt, err := net.LookupTXT(args[0])
		fmt.Println(len(txt))
		return err
	case verb == "addrs":
		return addrs()
	case verb == "serve" && len(args) == 1:
		ln, err := net.Listen("tcp", args[0])
		if err != nil {
			return err
		}
		fmt.Println("ready")
		return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host, _, _ := net.SplitHostPort(r.RemoteAddr)
			fmt.Fprintln(w, "served", host)
		}))
	case verb == "udp" && len(args) == 2:
		c, err := net.Dial("udp", args[0])
		if err != nil {
			return err
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprint(c, args[1])
		b := make([]byte, 1500)
		n, err := c.Read(b)
		fmt.Printf("%s\n", b[:n])
		return err
	}
	return fmt.Errorf("unknown: %s %v", verb, args)
}

// lookup prints the addresses of a name, or what is wrong with it. The server in
// the error's text is left out: it differs between machines.
func lookup(r *net.Resolver, name string) error {
	addrs, err := r.LookupHost(context.Background(), name)
	sort.Strings(addrs)
	var d *net.DNSError
	if errors.As(err, &d) {
		return fmt.Errorf("%s: %s, not found %v, temporary %v", d.Name, d.Err, d.IsNotFound, d.IsTemporary)
	}
	fmt.Println(strings.Join(addrs, " "))
	return err
}

func get(client *http.Client, url string) (string, error) {
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

func many(client *http.Client, url string, n int) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for range n {
		wg.Go(func() {
			if body, err := get(client, url); err == nil && body != "" {
				mu.Lock()
				good++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Println(good, "of", n)
	return nil
}

func addrs() error {
	ifs, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range ifs {
		as, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, a := range as {
			fmt.Println(i.Name, a)
		}
	}
	return nil
}
