package fast

import (
	"log"
	"testing"
)

func TestMayLog(t *testing.T) { log.Print(t.Name()) }
