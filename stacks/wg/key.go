// SPDX-License-Identifier: Apache-2.0

// Keys: public ones that may be shown, secret ones that show themselves to nobody.

package wg

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// keyLen is the size of every WireGuard key in bytes: Curve25519 points and
// scalars, and preshared keys.
const keyLen = 32

// hidden is what a [Secret] prints as, whatever the verb.
const hidden = "(hidden)"

// A PublicKey names a peer. It is comparable and prints as base64, as wg(8) does.
type PublicKey [keyLen]byte

// String returns the key in base64.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// ParsePublicKey reads what [PublicKey.String] writes.
func ParsePublicKey(s string) (PublicKey, error) {
	k, err := parseKey(s)
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key %w", err)
	}
	return k, nil
}

// A Secret is a private or a preshared key. It prints as "(hidden)" with every
// verb of package fmt, in slog and in JSON; only [Secret.Reveal] gives it away.
// The zero value is no key.
type Secret struct {
	// Two pointers, because fmt prints the unexported fields of structures that
	// hold a Secret without asking its methods, and follows one pointer where
	// the verb does not suit it. So it shows an address at most.
	key **[keyLen]byte
}

// secret returns k as a Secret.
func secret(k *[keyLen]byte) Secret { return Secret{&k} }

// bytes returns the key, which must be there.
func (s Secret) bytes() []byte { return (*s.key)[:] }

// NewPrivateKey returns a fresh private key, as wg genkey does.
func NewPrivateKey() (Secret, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return Secret{}, fmt.Errorf("make a private key: %w", err)
	}
	return secret((*[keyLen]byte)(k.Bytes())), nil
}

// NewPresharedKey returns a fresh preshared key, as wg genpsk does.
func NewPresharedKey() Secret {
	k := new([keyLen]byte)
	rand.Read(k[:]) // never fails, crypto/rand
	return secret(k)
}

// IsZero reports whether there is no key.
func (s Secret) IsZero() bool { return s.key == nil }

// Equal compares two secrets in constant time.
func (s Secret) Equal(t Secret) bool {
	if s.key == nil || t.key == nil {
		return s.key == t.key
	}
	return subtle.ConstantTimeCompare(s.bytes(), t.bytes()) == 1
}

// Public returns the public key that belongs to a private key, and the zero key
// to no key.
func (s Secret) Public() PublicKey {
	if s.key == nil {
		return PublicKey{}
	}
	k, err := ecdh.X25519().NewPrivateKey(s.bytes())
	if err != nil {
		return PublicKey{} // only for a wrong length
	}
	return PublicKey(k.PublicKey().Bytes())
}

// Reveal returns the key in base64, for those who write configurations.
func (s Secret) Reveal() string {
	if s.key == nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(s.bytes())
}

// String hides the key.
func (Secret) String() string { return hidden }

// Format hides the key from every verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// LogValue hides the key from slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the key from encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// hex returns the key as the device's configuration protocol writes it.
func (s Secret) hex() string { return hex.EncodeToString(s.bytes()) }

// parseKey decodes a key of 44 base64 characters. Its errors never hold any of s:
// people paste private keys into the wrong line.
func parseKey(s string) (k [keyLen]byte, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	switch {
	case len(s) != base64.StdEncoding.EncodedLen(keyLen):
		return k, fmt.Errorf("is not a key: it has %d characters, a key has 44", len(s))
	case err != nil || len(b) != keyLen:
		return k, errors.New("is not a key: not base64")
	}
	return [keyLen]byte(b), nil
}
