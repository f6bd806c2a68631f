#include "textflag.h"
#include "kernel_amd64.h"

// The walk of docs/CLASSIFIER.md in AVX2, four keys to a vector. Y9 is the highest
// rank there may be in each qword, Y10 is 0, Y11 the guard that word 0 of a key does not
// have, Y12 all guards, Y13 the lower halves of qwords, Y14 the value 63 in each.

// KEY puts into Y15 the key at a place, and its negation: added to a box, that
// is the key plus low and high minus the key.
#define KEY(place) \
	VBROADCASTI128 place, Y15;     \
	VPSUBQ         Y15, Y10, Y0;   \
	VPBLENDD       $0xF0, Y0, Y15, Y15

// MATCH4 compares the key with the four boxes from R13 on: bit j of DX is set where
// it is inside box j, as all guards are.
#define MATCH4 \
	VPADDQ      (R13), Y15, Y0;    \
	VPADDQ      32(R13), Y15, Y1;  \
	VPADDQ      64(R13), Y15, Y2;  \
	VPADDQ      96(R13), Y15, Y3;  \
	VPERM2I128  $0x20, Y2, Y0, Y4; \
	VPERM2I128  $0x31, Y2, Y0, Y5; \
	VPERM2I128  $0x20, Y3, Y1, Y6; \
	VPERM2I128  $0x31, Y3, Y1, Y7; \
	VPAND       Y5, Y4, Y4;        \
	VPAND       Y7, Y6, Y6;        \
	VPUNPCKLQDQ Y6, Y4, Y0;        \
	VPUNPCKHQDQ Y6, Y4, Y1;        \
	VPOR        Y11, Y0, Y0;       \
	VPAND       Y12, Y1, Y1;       \
	VPAND       Y1, Y0, Y0;        \
	VPCMPEQQ    Y12, Y0, Y0;       \
	VMOVMSKPD   Y0, DX

// UNASKED is, less the boxes that there are, an empty leaf with the highest rank as its
// fallback. NEXTBOX leads from a leaf to one without its first box.
#define UNASKED 0xFFFFF7FFFFFFFFF8
#define NEXTBOX -0x7FFFFF

// CELLS puts into Y4 the four cells of which Y, with X its lower half, has the numbers.
// One by one, as a gather takes longer. Uses BX, DX, R13, R14, X5.
#define CELLS(Y, X) \
	VMOVQ        X, BX;                  \
	VPEXTRQ      $1, X, DX;              \
	VEXTRACTI128 $1, Y, X4;              \
	VMOVQ        X4, R13;                \
	VPEXTRQ      $1, X4, R14;            \
	VMOVQ        (DI)(BX*8), X4;         \
	VPINSRQ      $1, (DI)(DX*8), X4, X4; \
	VMOVQ        (DI)(R13*8), X5;        \
	VPINSRQ      $1, (DI)(R14*8), X5, X5; \
	VINSERTI128  $1, X5, Y4, Y4

// WAY notes in AX which of the keys from CX on, whose cells are in Y0, are not at a leaf.
#define WAY \
	VMOVMSKPD Y0, DX;     \
	XORL      $15, DX;    \
	SHLXL     CX, DX, DX; \
	ORL       DX, AX

// BEST makes R10 the best rank of the key that is the lowest bit of AX, if it is lower. Uses BX, CX.
#define BEST \
	TZCNTL  AX, BX;                    \
	MOVL    best-896(SP)(BX*4), CX;    \
	CMPL    R10, CX;                   \
	CMOVLCS R10, CX;                   \
	MOVL    CX, best-896(SP)(BX*4)

// FEW is how many keys go on faster one by one than by fours.
#define FEW 8

// CONSTANTS are Y10, Y11 and Y12.
#define CONSTANTS \
	VPXOR        Y10, Y10, Y10;    \
	MOVQ         $GUARD, AX;       \
	VMOVQ        AX, X11;          \
	VPBROADCASTQ X11, Y11;         \
	MOVQ         $GUARDS, AX;      \
	VMOVQ        AX, X12;          \
	VPBROADCASTQ X12, Y12

// func burst256(cells []uint64, boxes []box, trees []tree, none uint32, keys []Key, out []Verdict)
//
// On the stack are the words of the keys, apart, the cells that they have come to
// and their best ranks; and the leaf of keys that a tree is not asked for: without
// boxes, and its fallback the highest rank. Whole vectors are filled up with keys of
// rank 0, which no tree is asked for.
TEXT ·burst256(SB), 0, $912-128
	MOVQ cells_base+0(FP), DI
	MOVQ boxes_base+24(FP), SI
	MOVQ trees_base+48(FP), R11
	MOVQ trees_len+56(FP), R12
	MOVQ keys_base+80(FP), R8
	MOVQ keys_len+88(FP), R9
	CONSTANTS
	VPCMPEQD Y13, Y13, Y13
	VPSRLQ $58, Y13, Y14
	VPSRLQ $44, Y13, Y9
	VPSRLQ $32, Y13, Y13
	MOVL none+72(FP), AX
	VMOVD AX, X0
	VPBROADCASTD X0, Y0
	VMOVDQU Y0, best-896(SP)
	VMOVDQU Y0, best-864(SP)
	VMOVDQU Y0, best-832(SP)
	VMOVDQU Y0, best-800(SP)
	MOVQ R9, CX
	JMP filled

fill:
	MOVL $0, best-896(SP)(CX*4)
	INCQ CX

filled:
	TESTQ $7, CX
	JNZ fill
	XORL CX, CX
	MOVQ R8, R10
	JMP fours

four:
	VMOVDQU (R10), Y0
	VMOVDQU 32(R10), Y1
	VPUNPCKLQDQ Y1, Y0, Y2
	VPUNPCKHQDQ Y1, Y0, Y3
	VPERMQ $0xD8, Y2, Y2
	VPERMQ $0xD8, Y3, Y3
	VMOVDQU Y2, word0-256(SP)(CX*8)
	VMOVDQU Y3, word1-512(SP)(CX*8)
	ADDQ $64, R10
	ADDQ $4, CX

fours:
	LEAQ 4(CX), DX
	CMPQ DX, R9
	JLE four
	JMP singles

single:
	MOVQ (R10), DX
	MOVQ DX, word0-256(SP)(CX*8)
	MOVQ 8(R10), DX
	MOVQ DX, word1-512(SP)(CX*8)
	ADDQ $16, R10
	INCQ CX

singles:
	CMPQ CX, R9
	JLT single
	TESTQ R9, R9
	JZ end
	TESTQ R12, R12
	JZ end
	MOVQ $UNASKED, AX
	ADDQ boxes_len+32(FP), AX
	MOVQ AX, unasked-904(SP)

tree:
	// Keys whose best rank is not over the tree's lowest are not asked about. Y7 is the lowest.
	VPBROADCASTD 8(R11), Y7
	VPCMPEQD Y0, Y0, Y0
	XORL CX, CX

asked:
	VPMAXUD best-896(SP)(CX*4), Y7, Y1
	VPCMPEQD Y7, Y1, Y1
	VPAND Y1, Y0, Y0
	ADDQ $8, CX
	CMPQ CX, R9
	JLT asked
	VMOVMSKPS Y0, DX
	CMPL DX, $0xFF
	JEQ next

	// The root, which is one table for all: in R10 the words that it takes bits of, in X1
	// the shift, in Y2 its mask, in Y6 its first cell.
	VPBROADCASTQ unasked-904(SP), Y8
	MOVQ (R11), BX
	XORL AX, AX
	XORL CX, CX
	VMOVQ BX, X6
	VPBROADCASTQ X6, Y6
	TESTQ BX, BX
	JS bare
	LEAQ word0-256(SP), R10
	LEAQ word1-512(SP), R13
	BTQ $38, BX
	CMOVQCS R13, R10
	VPSRLQ $32, Y6, Y1
	VPAND Y14, Y1, Y1
	VPSRLQ $40, Y6, Y2
	VPAND Y13, Y6, Y6

root:
	VPMAXUD best-896(SP)(CX*4), X7, X0
	VPCMPEQD X7, X0, X0
	VPMOVSXDQ X0, Y0
	VMOVDQU (R10)(CX*8), Y3
	VPSRLQ X1, Y3, Y3
	VPAND Y2, Y3, Y3
	VPADDQ Y6, Y3, Y3
	CELLS(Y3, X3)
	VBLENDVPD Y0, Y8, Y4, Y0
	VMOVDQU Y0, at-768(SP)(CX*8)
	WAY
	ADDQ $4, CX
	CMPQ CX, R9
	JLT root

	// Those on their way, the bits of AX, go on by fours until they are few.
level:
	POPCNTL AX, CX
	CMPL CX, $FEW
	JLE arrived
	MOVL AX, R10
	XORL AX, AX

group:
	TZCNTL R10, CX
	ANDL $0x1C, CX
	VMOVDQU at-768(SP)(CX*8), Y0
	VPSLLQ $25, Y0, Y1
	VMOVDQU word0-256(SP)(CX*8), Y2
	VBLENDVPD Y1, word1-512(SP)(CX*8), Y2, Y2
	VPSRLQ $32, Y0, Y3
	VPAND Y14, Y3, Y3
	VPSRLVQ Y3, Y2, Y2
	VPSRLQ $40, Y0, Y4
	VPAND Y4, Y2, Y2
	VPADDD Y0, Y2, Y2
	VPAND Y13, Y2, Y2
	// Cell 0 stands for the next one of a key that is at a leaf, and is not taken.
	VBLENDVPD Y0, Y10, Y2, Y2
	CELLS(Y2, X2)
	VBLENDVPD Y0, Y0, Y4, Y0
	VMOVDQU Y0, at-768(SP)(CX*8)
	WAY
	MOVL $15, BX
	SHLXL CX, BX, BX
	ANDNL R10, BX, R10
	JNZ group
	JMP level

bare:
	VPMAXUD best-896(SP)(CX*4), X7, X0
	VPCMPEQD X7, X0, X0
	VPMOVSXDQ X0, Y0
	VBLENDVPD Y0, Y8, Y6, Y0
	VMOVDQU Y0, at-768(SP)(CX*8)
	ADDQ $4, CX
	CMPQ CX, R9
	JLT bare

arrived:
	MOVL AX, late-908(SP)

	// The first box of each leaf, of four keys at once: its words side by side, those of
	// low in Y7 and Y3, those of high in Y4 and Y5. What is above the guards of word 0 is
	// the rank, and adding or subtracting a key leaves it as it is.
	VPSRLQ $9, Y13, Y15
	XORL AX, AX
	XORL CX, CX

first:
	VMOVDQU at-768(SP)(CX*8), Y0
	VBLENDVPD Y0, Y0, Y8, Y0
	VPAND Y15, Y0, Y2
	VPSLLQ $5, Y2, Y2
	VMOVQ X2, BX
	VPEXTRQ $1, X2, DX
	VEXTRACTI128 $1, Y2, X3
	VMOVQ X3, R13
	VPEXTRQ $1, X3, R14
	VMOVDQU (SI)(BX*1), X3
	VMOVDQU (SI)(DX*1), X4
	VMOVDQU 16(SI)(BX*1), X5
	VMOVDQU 16(SI)(DX*1), X6
	VINSERTI128 $1, (SI)(R13*1), Y3, Y3
	VINSERTI128 $1, (SI)(R14*1), Y4, Y4
	VINSERTI128 $1, 16(SI)(R13*1), Y5, Y5
	VINSERTI128 $1, 16(SI)(R14*1), Y6, Y6
	VPUNPCKLQDQ Y4, Y3, Y7
	VPUNPCKHQDQ Y4, Y3, Y3
	VPUNPCKLQDQ Y6, Y5, Y4
	VPUNPCKHQDQ Y6, Y5, Y5
	VMOVDQU word0-256(SP)(CX*8), Y1
	VMOVDQU word1-512(SP)(CX*8), Y2
	VPADDQ Y1, Y7, Y7
	VPSUBQ Y1, Y4, Y4
	VPADDQ Y2, Y3, Y3
	VPSUBQ Y2, Y5, Y5
	VPSRLQ $50, Y7, Y6
	VPSRLQ $50, Y4, Y1
	VPSLLQ $14, Y1, Y1
	VPOR Y1, Y6, Y6
	VPAND Y4, Y7, Y7
	VPAND Y5, Y3, Y3
	VPOR Y11, Y7, Y7
	VPAND Y12, Y3, Y3
	VPAND Y3, Y7, Y7
	VPCMPEQQ Y12, Y7, Y7
	VPSRLQ $43, Y0, Y1
	VPAND Y9, Y1, Y1
	VBLENDVPD Y7, Y6, Y1, Y1
	VEXTRACTI128 $1, Y1, X2
	VSHUFPS $0x88, X2, X1, X1
	VPMINUD best-896(SP)(CX*4), X1, X1
	VMOVDQU X1, best-896(SP)(CX*4)
	// Those go on whom it does not hold, and whose leaf has more.
	VPSRLQ $23, Y0, Y0
	VPAND Y9, Y0, Y0
	VPCMPEQQ Y10, Y0, Y0
	VPOR Y0, Y7, Y7
	VMOVMSKPD Y7, DX
	XORL $0xF, DX
	SHLL CX, DX
	ORL DX, AX
	ADDQ $4, CX
	CMPQ CX, R9
	JLT first
	TESTL AX, AX
	JZ rest

leaf:
	TZCNTL AX, BX
	MOVQ BX, CX
	SHLQ $4, CX
	KEY((R8)(CX*1))
	MOVQ at-768(SP)(BX*8), BX
	ADDQ $NEXTBOX, BX
	LEAF(turn, more, pick)
	BEST
	BLSRL AX, AX
	JNZ leaf

	// The few that were left on their way, whose loads and stores would wait for each
	// other among the vectors.
rest:
	MOVL late-908(SP), AX
	TESTL AX, AX
	JZ next

few:
	TZCNTL AX, R10
	MOVQ at-768(SP)(R10*8), BX

down:
	RORXQ $32, BX, CX
	SHRXQ CX, word0-256(SP)(R10*8), DX
	SHRXQ CX, word1-512(SP)(R10*8), R13
	BTQ $38, BX
	CMOVQCS R13, DX
	MOVQ BX, CX
	SHRQ $40, CX
	ANDL CX, DX
	ADDL BX, DX
	MOVQ (DI)(DX*8), BX
	TESTQ BX, BX
	JNS down
	SHLQ $4, R10
	KEY((R8)(R10*1))
	LEAF(turn2, more2, pick2)
	BEST
	BLSRL AX, AX
	JNZ few

next:
	ADDQ $16, R11
	DECQ R12
	JNZ tree

end:
	MOVQ out_base+104(FP), DI
	XORL CX, CX
	JMP results

result:
	MOVL best-896(SP)(CX*4), DX
	MOVL DX, (DI)(CX*4)
	INCQ CX

results:
	CMPQ CX, R9
	JLT result
	VZEROUPPER
	RET

	MORE(turn, more, pick)
	MORE(turn2, more2, pick2)

// func one256(cells []uint64, boxes []box, trees []tree, none uint32, k *Key) uint32
TEXT ·one256(SB), NOSPLIT, $0-92
	MOVQ cells_base+0(FP), DI
	MOVQ boxes_base+24(FP), SI
	MOVQ trees_base+48(FP), R11
	MOVQ trees_len+56(FP), R12
	MOVL none+72(FP), R9
	MOVQ k+80(FP), R8
	CONSTANTS
	TESTQ R12, R12
	JZ end
	// Word by word, as it was mostly just stored.
	MOVQ (R8), AX
	MOVQ 8(R8), R8
	VMOVQ AX, X15
	VPINSRQ $1, R8, X15, X15
	VINSERTI128 $1, X15, Y15, Y15
	VPSUBQ Y15, Y10, Y0
	VPBLENDD $0xF0, Y0, Y15, Y15

tree:
	CMPL R9, 8(R11)
	JLS next
	MOVQ (R11), BX
	TESTQ BX, BX
	JS leaf

level:
	NEXT
	JNS level

leaf:
	LEAF(turn, more, pick)
	CMPL R10, R9
	CMOVLCS R10, R9

next:
	ADDQ $16, R11
	DECQ R12
	JNZ tree

end:
	VZEROUPPER
	MOVL R9, ret+88(FP)
	RET

	MORE(turn, more, pick)
