package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"

	"k8s.io/streaming/pkg/httpstream"
)

// Forward is a connection to where PortForwardURL said, over which many
// connections go.
type Forward struct {
	conn httpstream.Connection
	mu   sync.Mutex
	next int
}

// DialForward connects. The caller closes it.
func DialForward(ctx context.Context, address string) (*Forward, error) {
	conn, err := dial(ctx, address, forwardProtocol)
	if err != nil {
		return nil, err
	}
	return &Forward{conn: conn}, nil
}

// Close ends all that goes over it.
func (f *Forward) Close() error { return f.conn.Close() }

// Lost is closed when the runtime has ended the connection.
func (f *Forward) Lost() <-chan bool { return f.conn.CloseChan() }

// Carry connects c with a port of the pod until one of them ends, and closes
// c. The error says why the port could not be reached; others that are carried
// go on.
func (f *Forward) Carry(ctx context.Context, c net.Conn, port uint16) error {
	defer c.Close()
	failure, data, err := f.open(port)
	if err != nil {
		return fmt.Errorf("open stream to port %d: %w", port, err)
	}
	defer f.conn.RemoveStreams(failure, data)
	defer data.Reset()
	defer context.AfterFunc(ctx, func() { c.Close(); data.Reset(); failure.Reset() })()
	failure.Close() // nothing is to be sent on it

	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(data, c) // either side may end when it likes
		data.Close()
	})
	received := make(chan struct{})
	wg.Go(func() {
		defer close(received)
		_, _ = io.Copy(c, data)
		c.Close()
	})
	text, err := io.ReadAll(failure)
	if len(text) > 0 {
		c.Close()
		data.Reset()
	} else {
		<-received
	}
	wg.Wait()
	switch {
	case ctx.Err() != nil:
		return nil
	case len(text) > 0:
		return fmt.Errorf("port %d of the pod: %w", port, errors.New(string(text)))
	case err != nil:
		return fmt.Errorf("port %d of the pod: %w", port, err)
	}
	return nil
}

// open makes the two streams of a connection.
func (f *Forward) open(port uint16) (failure, data httpstream.Stream, err error) {
	f.mu.Lock()
	f.next++
	id := strconv.Itoa(f.next)
	f.mu.Unlock()
	header := func(kind string) http.Header {
		return http.Header{streamType: {kind}, "port": {strconv.Itoa(int(port))}, "requestID": {id}}
	}
	if failure, err = f.conn.CreateStream(header("error")); err != nil {
		return nil, nil, err
	}
	if data, err = f.conn.CreateStream(header("data")); err != nil {
		return nil, nil, errors.Join(err, failure.Reset())
	}
	return failure, data, nil
}
