package probe

import (
	"io"
	"net/http"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodeagent/nodeagent/pkg/pod"
)

// BenchmarkAsk is one attempt on a server that answers at once; its allocations
// are the server's too.
func BenchmarkAsk(b *testing.B) {
	l := listen(b)
	go func() {
		buf := make([]byte, 4096)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if n, _ := c.Read(buf); n > 0 {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
			}
			c.Close()
		}
	}()
	at := intstr.FromInt32(port(l))
	for name, handler := range map[string]v1.ProbeHandler{
		http.MethodGet: {HTTPGet: &v1.HTTPGetAction{Port: at}}, "TCP": {TCPSocket: &v1.TCPSocketAction{Port: at}},
	} {
		b.Run(name, func(b *testing.B) {
			q := pod.Probing{Host: "127.0.0.1", Container: &v1.Container{Name: "main"}, Probe: &v1.Probe{TimeoutSeconds: 1, ProbeHandler: handler}}
			ask := handlers().Ask(q)
			b.ReportAllocs()
			for b.Loop() {
				if outcome, message := ask(b.Context()); outcome != pod.Passed {
					b.Fatal(message)
				}
			}
		})
	}
}
