// SPDX-License-Identifier: Apache-2.0

// Command goquic speaks HTTP/3 with quic-go, over UDP sockets as QUIC stacks use them:
// packet information, ECN, segmentation offload where there is any.
//
//	goquic serve ADDR CERT KEY FILE   /big is the file, a POST is answered with its
//	                                  SHA-256, all else with protocol and client
//	goquic get CA URL                 the body
//	goquic sum CA URL                 its SHA-256
//	goquic post CA URL FILE           the answer to a POST of the file
//	goquic many CA URL N              N requests at once on one connection: how many worked
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go/http3"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "goquic:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 5 && args[0] == "serve" {
		return serve(args[1], args[2], args[3], args[4])
	}
	if len(args) < 3 {
		return fmt.Errorf("unknown: %v", args)
	}
	pem, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer tr.Close()
	client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
	switch {
	case args[0] == "get" && len(args) == 3:
		return ask(client, http.MethodGet, args[2], nil, os.Stdout)
	case args[0] == "sum" && len(args) == 3:
		h := sha256.New()
		err := ask(client, http.MethodGet, args[2], nil, h)
		fmt.Printf("%x\n", h.Sum(nil))
		return err
	case args[0] == "post" && len(args) == 4:
		f, err := os.Open(args[3])
		if err != nil {
			return err
		}
		defer f.Close()
		return ask(client, http.MethodPost, args[2], f, os.Stdout)
	case args[0] == "many" && len(args) == 4:
		n, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		var good atomic.Int32
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if ask(client, http.MethodGet, args[2], nil, io.Discard) == nil {
					good.Add(1)
				}
			})
		}
		wg.Wait()
		fmt.Printf("%d of %d\n", good.Load(), n)
		return nil
	}
	return fmt.Errorf("unknown: %v", args)
}

func ask(client *http.Client, method, url string, body io.Reader, w io.Writer) error {
	q, err := http.NewRequestWithContext(context.Background(), method, url, body)
	if err != nil {
		return err
	}
	r, err := client.Do(q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.ProtoMajor != 3 {
		return errors.New("answered by " + r.Proto)
	}
	_, err = io.Copy(w, r.Body)
	return err
}

func serve(addr, cert, key, file string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /big", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "%x\n", h.Sum(nil))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintln(w, r.Proto, host)
	})
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	s := &http3.Server{Addr: addr, Handler: mux, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}})}
	fmt.Println("ready")
	return s.ListenAndServe()
}
