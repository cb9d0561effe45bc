// Package stream is the client's side of the runtime's streaming: commands in
// containers, attached containers and forwarded ports, over SPDY, for people
// on the machine. The node's API proxies instead, and needs none of it.
package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// The protocols, and the header that says what a stream is for.
const (
	commandProtocol = "v4.channel.k8s.io"
	forwardProtocol = "portforward.k8s.io"
	streamType      = "streamType"
)

// ping is how often the other side is asked whether it lives.
const ping = 10 * time.Second

// Size of a terminal.
type Size struct{ Width, Height uint16 }

// Session is a command in a container, or an attached container. A stream that
// is nil isn't asked for.
type Session struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	// Sizes are those of the terminal, the first at once; only with TTY.
	Sizes <-chan Size
}

// dial upgrades a connection to the URL that the runtime gave.
func dial(ctx context.Context, address, protocol string) (httpstream.Connection, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("runtime's streaming URL: %w", err)
	}
	trip, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{
		PingPeriod: ping,
		Proxier:    func(*http.Request) (*url.URL, error) { return nil, nil }, // it is on this machine
	})
	if err != nil {
		return nil, fmt.Errorf("prepare stream: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("prepare stream: %w", err)
	}
	req.Header.Set(httpstream.HeaderProtocolVersion, protocol)
	resp, err := trip.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("reach the runtime's streaming server at %s: %w", u.Host, err)
	}
	conn, err := trip.NewConnection(resp)
	if err != nil {
		return nil, fmt.Errorf("open stream to the runtime: %w", err)
	}
	return conn, nil
}

// Run connects the session to where ExecURL or AttachURL said, and returns the
// command's exit code. When the context ends so does the session; the command
// in the container may go on. A Read of Stdin that blocks is left behind.
func Run(ctx context.Context, address string, s Session) (code int, err error) {
	conn, err := dial(ctx, address, commandProtocol)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	code, err = s.run(conn)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return code, err
}

func (s Session) run(conn httpstream.Connection) (int, error) {
	streams := map[string]httpstream.Stream{}
	for _, kind := range []string{"error", "stdin", "stdout", "stderr", "resize"} {
		if !s.wants(kind) {
			continue
		}
		stream, err := conn.CreateStream(http.Header{streamType: {kind}})
		if err != nil {
			return 0, fmt.Errorf("open stream %s: %w", kind, err)
		}
		streams[kind] = stream
	}
	if in := streams["stdin"]; in != nil {
		go func() {
			_, _ = io.Copy(in, s.Stdin) // a command that ended reads no more: no failure
			in.Close()
		}()
	}
	ended := make(chan struct{})
	if to := streams["resize"]; to != nil {
		go s.resize(to, ended)
	}
	var wg sync.WaitGroup
	for kind, to := range map[string]io.Writer{"stdout": s.Stdout, "stderr": s.Stderr} {
		if from := streams[kind]; from != nil {
			wg.Go(func() {
				_, _ = io.Copy(to, from)
				// One that isn't read would hold up the others.
				_, _ = io.Copy(io.Discard, from)
			})
		}
	}
	text, err := io.ReadAll(streams["error"])
	wg.Wait()
	close(ended)
	if err != nil {
		return 0, fmt.Errorf("wait for the command's end: %w", err)
	}
	return exitCode(text)
}

// wants says whether the session has a stream of this kind.
func (s Session) wants(kind string) bool {
	switch kind {
	case "stdin":
		return s.Stdin != nil
	case "stdout":
		return s.Stdout != nil
	case "stderr":
		return s.Stderr != nil && !s.TTY
	case "resize":
		return s.TTY && s.Sizes != nil
	}
	return true
}

// resize tells the sizes of the terminal until the session has ended.
func (s Session) resize(to io.Writer, ended <-chan struct{}) {
	enc := json.NewEncoder(to)
	for {
		select {
		case <-ended:
			return
		case size := <-s.Sizes:
			if err := enc.Encode(size); err != nil {
				return // the session ends
			}
		}
	}
}

// exitCode reads how a command ended.
func exitCode(text []byte) (int, error) {
	if len(text) == 0 {
		return 0, errors.New("the connection to the runtime ended before the command did")
	}
	var s metav1.Status
	if err := json.Unmarshal(text, &s); err != nil {
		return 0, fmt.Errorf("read how the command ended: %w", err)
	}
	if s.Status == metav1.StatusSuccess {
		return 0, nil
	}
	if s.Details != nil {
		for _, cause := range s.Details.Causes {
			if code, err := strconv.Atoi(cause.Message); err == nil && cause.Type == "ExitCode" {
				return code, nil
			}
		}
	}
	return 0, errors.New(s.Message)
}
