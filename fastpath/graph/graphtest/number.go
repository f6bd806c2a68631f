package graphtest

import (
	"fmt"
	"reflect"
)

// Number gives every counter below p, a pointer to a structure of counters, a
// number of its own, and returns the numbers by path, as "Counters.Drops[3]".
// What reads counters one by one is held to have read all of them that way.
// Slices keep their length. It panics at a field that is no counter.
func Number(p any) map[string]uint64 {
	out := map[string]uint64{}
	number("", reflect.ValueOf(p).Elem(), out)
	return out
}

func number(path string, v reflect.Value, out map[string]uint64) {
	switch v.Kind() {
	case reflect.Uint64:
		n := uint64(1001 + len(out))
		v.SetUint(n)
		out[path] = n
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if path != "" {
				name = path + "." + name
			}
			number(name, v.Field(i), out)
		}
	case reflect.Array, reflect.Slice:
		for i := range v.Len() {
			number(fmt.Sprintf("%s[%d]", path, i), v.Index(i), out)
		}
	default:
		panic(fmt.Sprintf("number counters: %s is a %v, which is no counter", path, v.Kind()))
	}
}
