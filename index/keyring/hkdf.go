package keyring

import "crypto/sha256"

// deriveRoom holds a label, a salt and HMAC's inner hash.
const deriveRoom = 64

// deriveInto is HKDF-SHA256 (RFC 5869) with an output of one block, 32 bytes. The
// standard library's leaves the key in buffers on the heap that nobody can reach;
// here everything is on the stack, which the caller burns. salt and label have at most
// deriveRoom-1 bytes.
func deriveInto(out *[keyLen]byte, secret, salt []byte, label string) {
	var none, extracted [keyLen]byte
	if salt == nil {
		salt = none[:]
	}
	hmacInto(&extracted, salt, secret)
	var info [deriveRoom]byte
	n := copy(info[:], label)
	info[n] = 1 // the number of the block
	hmacInto(out, extracted[:], info[:n+1])
}

// hmacInto is HMAC-SHA256 (RFC 2104) for keys shorter than a block and messages of
// at most deriveRoom bytes.
func hmacInto(out *[keyLen]byte, key, message []byte) {
	var room [sha256.BlockSize + deriveRoom]byte
	pad := func(x byte) {
		clear(room[:])
		copy(room[:], key)
		for i := range sha256.BlockSize {
			room[i] ^= x
		}
	}
	pad(0x36)
	n := sha256.BlockSize + copy(room[sha256.BlockSize:], message)
	inner := sha256.Sum256(room[:n])
	pad(0x5c)
	n = sha256.BlockSize + copy(room[sha256.BlockSize:], inner[:])
	*out = sha256.Sum256(room[:n])
}

// derive is deriveInto for a value.
func derive(secret, salt []byte, label string) (out [keyLen]byte) {
	deriveInto(&out, secret, salt, label)
	return out
}
