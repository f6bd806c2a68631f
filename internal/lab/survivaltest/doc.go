// Package survivaltest holds the tests of what a forwarder must survive, over
// whole labs: real forwarder processes between real kernels, killed, starved,
// lied to and left without their devices while traffic runs. It has no code of
// its own.
//
// Every test ends with the same questions: is every packet accounted for, did
// no forwarder panic, and is nothing left of the lab.
package survivaltest
