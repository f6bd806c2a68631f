// Package domains learns which addresses names of hosts have, from what DNS
// tells endpoints, and keeps for each pattern that a network set has the addresses
// of the names that it matches.
//
//	queries, answers ──Reader──► names and addresses ──Book──► Changes: addresses that joined and left a pattern
//	(v1.Overheard)
//
// Nothing is asked: an address is known when an endpoint has been told it, and for
// as long as it was told (TTL), with a grace. The Keeper joins both parts and
// says which packets may go on: those that say nothing new at once, the others when
// what they say is in force.
//
// What is heard comes from packets that anybody may have sent. It is believed only
// where it answers a query that the endpoint has sent, to the server that it was sent
// to, about the name that was asked for; and all that is kept has limits.
package domains
