// Server is what the tests' pods serve: HTTP on :8080 and HTTPS on :8443, the
// gRPC health protocol on :9090, and an echo over TCP on :7000 and UDP on :7001.
// Each port moves by the same number with -ports 100.
//
// How it answers is in its mode, at first that of -mode: ok, fail (HTTP 500, not
// serving) or hang (no answer ever). GET /mode/fail sets it, and so does the
// word in the file named by -file, looked at with each request. The paths below
// answer whatever the mode is:
//
//	/echo             the request: method, URL, host and headers, a line each
//	/status/503       that status
//	/redirect?to=URL  sends there, with the status in code (302)
//	/big?bytes=N      so many bytes, as fast as they are taken
//	/stall            the headers, and never the body
//	/answered         how many requests were answered in this mode
//	/log              the lines that were asked for by /log/LINE, in their order
//	/env, /read?file=F, /hostname
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	mode := flag.String("mode", "ok", "ok, fail or hang")
	file := flag.String("file", "", "holds the mode, if it is there")
	ports := flag.Int("ports", 0, "added to each port")
	delay := flag.Duration("delay", 0, "before the first port is opened")
	flag.Parse()
	time.Sleep(*delay)
	s := &server{mode: *mode, file: *file}
	at := func(port int) string { return ":" + strconv.Itoa(port+*ports) }
	go func() { log.Fatal(http.ListenAndServe(at(8080), s.routes())) }()
	go func() { log.Fatal(s.serveTLS(at(8443))) }()
	go func() { log.Fatal(s.serveGRPC(at(9090))) }()
	go func() { log.Fatal(echoTCP(at(7000))) }()
	go func() { log.Fatal(echoUDP(at(7001))) }()
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	<-term
}

type server struct {
	file string

	mu       sync.Mutex
	mode     string
	answered int // in this mode
	log      []string
}

// now is the mode that holds now.
func (s *server) now() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != "" {
		if data, err := os.ReadFile(s.file); err == nil {
			return strings.TrimSpace(string(data))
		}
	}
	return s.mode
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.answer)
	mux.HandleFunc("/mode/{mode}", func(_ http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mode, s.answered = r.PathValue("mode"), 0
	})
	mux.HandleFunc("/answered", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprint(w, s.answered)
	})
	mux.HandleFunc("/log", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprintln(w, strings.Join(s.log, "\n"))
	})
	mux.HandleFunc("/log/{line}", func(_ http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log = append(s.log, r.PathValue("line"))
	})
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(number(r.PathValue("code"), 500)) })
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.FormValue("to"), number(r.FormValue("code"), http.StatusFound))
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(w, zeros{}, int64(number(r.FormValue("bytes"), 1<<30)))
	})
	mux.HandleFunc("/stall", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, strings.Join(os.Environ(), "\n")) })
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, r.FormValue("file")) })
	mux.HandleFunc("/hostname", func(w http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprintln(w, name)
	})
	return mux
}

// answer says how the server is.
func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	mode := s.now()
	if mode != "hang" {
		s.mu.Lock()
		s.answered++
		s.mu.Unlock()
	}
	switch mode {
	case "ok":
		fmt.Fprintln(w, "ok")
	case "hang":
		<-r.Context().Done()
	default:
		http.Error(w, mode, http.StatusInternalServerError)
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s %s\nHost: %s\n", r.Method, r.URL, r.Proto, r.Host)
	var lines []string
	for name, values := range r.Header {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	slices.Sort(lines)
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}

func number(s string, otherwise int) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return otherwise
	}
	return n
}

// zeros is an endless reader.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// serveTLS serves with a certificate that nobody knows.
func (s *server) serveTLS(addr string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return err
	}
	h := &http.Server{Addr: addr, Handler: s.routes(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
	return h.ListenAndServeTLS("", "")
}

func echoTCP(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

func echoUDP(addr string) error {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}
