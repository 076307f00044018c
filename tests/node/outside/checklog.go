// Checklog reads a running node's log with the tools of Go's checksum database (golang.org/x/mod/sumdb), which share
// no code with wmreg, and checks a receipt with them.
//
//	checklog NODE-URL POLICY-FILE RECEIPT-FILE
//
// It checks the latest checkpoint's signatures (the log's keys and the cosigners'), rebuilds the tree from hash tiles,
// compares every leaf with the served entries, and checks the receipt's inclusion proof and that the latest tree
// continues the receipt's. It prints one line of JSON, or says what is wrong and exits with 1.
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight       = 8
	algCosignatureV1 = 4
	timestampBytes   = 8
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: checklog NODE-URL POLICY-FILE RECEIPT-FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url, policyFile, receiptFile string) error {
	logKeys, witnesses, err := readPolicy(policyFile)
	if err != nil {
		return err
	}
	raw, err := get(url + "/checkpoint")
	if err != nil {
		return err
	}
	latest, signers, err := open(raw, logKeys, witnesses)
	if err != nil {
		return fmt.Errorf("latest checkpoint: %w", err)
	}
	reader := tlog.TileHashReader(latest, tileReader{url})
	if err := checkEntries(url, latest, reader); err != nil {
		return err
	}
	receipt, err := os.ReadFile(receiptFile)
	if err != nil {
		return err
	}
	index, old, err := checkReceipt(string(receipt), logKeys, witnesses)
	if err != nil {
		return fmt.Errorf("receipt: %w", err)
	}
	proof, err := tlog.ProveTree(latest.N, old.N, reader)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, latest.N, latest.Hash, old.N, old.Hash); err != nil {
		return fmt.Errorf("the log does not continue the receipt's: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"size": latest.N, "index": index, "signers": signers})
}

// readPolicy reads the keys of a C2SP tlog-policy file.
func readPolicy(path string) (logKeys, witnesses []note.Verifier, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		words := strings.Fields(line)
		switch {
		case len(words) >= 2 && words[0] == "log":
			key, err := note.NewVerifier(words[1])
			if err != nil {
				return nil, nil, err
			}
			logKeys = append(logKeys, key)
		case len(words) >= 3 && words[0] == "witness":
			key, err := newCosigner(words[2])
			if err != nil {
				return nil, nil, err
			}
			witnesses = append(witnesses, key)
		}
	}
	return logKeys, witnesses, nil
}

// cosigner verifies cosignature/v1 signatures, which x/mod does not know.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("not a verifier key: %q", vkey)
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, err
	}
	if len(key) != 1+ed25519.PublicKeySize || key[0] != algCosignatureV1 {
		return nil, fmt.Errorf("not the key of a cosigner: %q", vkey)
	}
	return &cosigner{parts[0], uint32(hash), key[1:]}, nil
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }
func (c *cosigner) Verify(message, signature []byte) bool {
	if len(signature) != timestampBytes+ed25519.SignatureSize {
		return false
	}
	time := binary.BigEndian.Uint64(signature)
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, message)
	return ed25519.Verify(c.key, []byte(signed), signature[timestampBytes:])
}

// open checks a signed checkpoint; every known key that signed it must be right, and a log key and a witness must have.
func open(raw []byte, logKeys, witnesses []note.Verifier) (tlog.Tree, []string, error) {
	known := append(append([]note.Verifier{}, logKeys...), witnesses...)
	opened, err := note.Open(raw, note.VerifierList(known...))
	if err != nil {
		return tlog.Tree{}, nil, err
	}
	var signers []string
	for _, line := range opened.Sigs {
		signers = append(signers, line.Name)
	}
	if !signedByOne(opened.Sigs, logKeys) || !signedByOne(opened.Sigs, witnesses) {
		return tlog.Tree{}, nil, fmt.Errorf("only %v signed", signers)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != logKeys[0].Name() {
		return tlog.Tree{}, nil, fmt.Errorf("not a checkpoint of %s: %q", logKeys[0].Name(), opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, nil, err
	}
	hash, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: hash}, signers, err
}

func signedByOne(signatures []note.Signature, keys []note.Verifier) bool {
	for _, signature := range signatures {
		for _, key := range keys {
			if signature.Name == key.Name() && signature.Hash == key.KeyHash() {
				return true
			}
		}
	}
	return false
}

// checkEntries compares every served entry with its leaf, which the tile reader checks against the root.
func checkEntries(url string, tree tlog.Tree, reader tlog.HashReader) error {
	for begin := int64(0); begin < tree.N; begin += 1 << tileHeight {
		width := tree.N - begin
		if width > 1<<tileHeight {
			width = 1 << tileHeight
		}
		bundle, err := get(url + "/tile/entries/" + tilePath(begin>>tileHeight, int(width)))
		if err != nil {
			return err
		}
		for index := begin; index < begin+width; index++ {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("the bundle with entry %d is cut off", index)
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			leaves, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			if err != nil {
				return err
			}
			if leaves[0] != tlog.RecordHash(bundle[2:end]) {
				return fmt.Errorf("entry %d is not the leaf", index)
			}
			bundle = bundle[end:]
		}
		if len(bundle) != 0 {
			return fmt.Errorf("%d bytes behind the last entry of a bundle", len(bundle))
		}
	}
	return nil
}

// checkReceipt checks a C2SP tlog-proof whose extra line carries the entry.
func checkReceipt(text string, logKeys, witnesses []note.Verifier) (int64, tlog.Tree, error) {
	head, signed, found := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return 0, tlog.Tree{}, fmt.Errorf("not a tlog-proof with an extra line")
	}
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return 0, tlog.Tree{}, err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return 0, tlog.Tree{}, err
	}
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return 0, tlog.Tree{}, err
		}
		proof = append(proof, hash)
	}
	tree, _, err := open([]byte(signed), logKeys, witnesses)
	if err != nil {
		return 0, tlog.Tree{}, err
	}
	return index, tree, tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry))
}

// tileReader fetches hash tiles by the paths of C2SP tlog-tiles, which leave out the height.
type tileReader struct{ url string }

func (tileReader) Height() int                         { return tileHeight }
func (tileReader) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := get(fmt.Sprintf("%s/tile/%d/%s", r.url, tile.L, tilePath(tile.N, tile.W)))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func tilePath(number int64, width int) string {
	tile := tlog.Tile{H: tileHeight, L: 0, N: number, W: width}
	return strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/0/", tileHeight))
}

func get(url string) ([]byte, error) {
	answer, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var body bytes.Buffer
	if _, err := io.Copy(&body, answer.Body); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", url, answer.Status, body.String())
	}
	return body.Bytes(), nil
}
