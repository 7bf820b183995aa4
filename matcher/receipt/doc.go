// Package receipt states, signed, what an erasure destroyed: who asked, when
// each step was done, how much there was, its digest, and what the search of the
// files found afterwards.
//
// A receipt is a signed document of package signing: a JSON file that a
// visitor, a parent or a prosecutor can read and check offline. Sign refuses to
// state an erasure that was not finished: a receipt with bytes left, or with steps in
// an impossible order, does not come to be, and Parse refuses one too.
//
// What a receipt proves is that the service, holding the key, said so at the time.
// That nothing is left rests on the service's own search; copies that somebody
// took before are not covered by it. A receipt for a subject names the subject by
// its pseudonym, or it would prove nothing to the person. It holds nothing else
// about a person.
//
// Ledger keeps the receipts, in order and signed, in files of their own. There
// the receipt of a subject stands sealed under the key of its scope: while the scope
// lives it can be asked for, and when the purpose ends the pseudonym ends with it.
// Whoever asked in time keeps the document, and the ledger still vouches for it
// by its hash.
package receipt
