// Empty links what the agent links and does nothing, until its input ends. The
// memory that it takes is what the libraries cost whoever uses them.
package main

import (
	"io"
	"os"

	_ "github.com/nodeagent/nodeagent/pkg/agent"
)

func main() { _, _ = io.Copy(io.Discard, os.Stdin) }
