package fast

import "log"

// Elsewhere is built on another platform only, and governed all the same.
func Elsewhere() { log.Print("here") }
