package exposition

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip" // in half the time of Go's own
)

// contentType is that of the text that every scraper reads, also one that would
// rather have another.
const contentType = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

// zippers are reused: one has 800 KB of tables.
var zippers = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return z
}}

// Serve answers with what write writes, compressed if the asker takes that. An
// error is of the connection.
func Serve(w http.ResponseWriter, r *http.Request, write func(io.Writer) error) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Add("Vary", "Accept-Encoding")
	if !takesGzip(r.Header) {
		return sent(write(w))
	}
	h.Set("Content-Encoding", "gzip")
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(w)
	if err := write(z); err != nil {
		return sent(err)
	}
	return sent(z.Close())
}

func sent(err error) error {
	if err != nil {
		return fmt.Errorf("send metrics: %w", err)
	}
	return nil
}

// takesGzip says whether the asker named gzip, and not only to refuse it.
func takesGzip(h http.Header) bool {
	for _, header := range h.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(header, ",") {
			name, weight, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(name), "gzip") {
				q := strings.ReplaceAll(weight, " ", "")
				return strings.Trim(strings.TrimPrefix(q, "q="), "0.") != "" || q == ""
			}
		}
	}
	return false
}
