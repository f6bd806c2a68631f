// Show prints the version line, for the test that builds it.
package main

import (
	"fmt"

	"margay.dev/margay/internal/version"
)

func main() { fmt.Println(version.Line("show")) }
