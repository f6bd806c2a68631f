// Package hotuser makes the compiler see a generic function of package hot.
package hotuser

import "example.test/planted/hot"

// Use is what instantiates it.
func Use() *int { return hot.Generic(3) }
