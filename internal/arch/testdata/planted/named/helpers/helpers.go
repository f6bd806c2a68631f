// Package fine lies in a folder that says nothing.
package fine
