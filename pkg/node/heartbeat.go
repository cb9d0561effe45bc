package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
)

// NewHeartbeat makes a client with connections of its own, on which no answer
// waits behind those of a busy agent. When a call is not answered in time all of
// them are closed, and the next call begins with a new one: on a connection that
// died silently it would wait as long as TCP does, which is many minutes.
func NewHeartbeat(config *rest.Config) (kubernetes.Interface, error) {
	config = rest.CopyConfig(config)
	config.Timeout = callTimeout
	config.QPS, config.RateLimiter = -1, nil // nothing holds back a sign of life
	dial := config.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: callTimeout, KeepAlive: 10 * time.Second}).DialContext
	}
	dialer := connrotation.NewDialer(dial)
	config.Dial = dialer.DialContext
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return hangUp{next, dialer.CloseAll} })
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("prepare the client for node lease and status: %w", err)
	}
	return client, nil
}

// hangUp closes all connections when one of them gave no answer in time.
type hangUp struct {
	next  http.RoundTripper
	close func()
}

// RoundTrip implements http.RoundTripper.
func (h hangUp) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := h.next.RoundTrip(r)
	if err != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(r.Context().Err(), context.DeadlineExceeded)) {
		h.close()
	}
	return answer, err
}
