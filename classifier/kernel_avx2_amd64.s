#include "textflag.h"
#include "kernel_amd64.h"

// The walk of docs/CLASSIFIER.md in AVX2, four keys to a vector. Y10 is 0, Y11 the
// guard that word 0 of a key does not have, Y12 all guards, Y13 the lower halves of
// qwords, Y14 the value 63 in each.

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

#define CONSTANTS \
	VPXOR        Y10, Y10, Y10;    \
	MOVQ         $GUARD, AX;       \
	VMOVQ        AX, X11;          \
	VPBROADCASTQ X11, Y11;         \
	MOVQ         $GUARDS, AX;      \
	VMOVQ        AX, X12;          \
	VPBROADCASTQ X12, Y12;         \
	VPCMPEQD     Y13, Y13, Y13;    \
	VPSRLQ       $58, Y13, Y14;    \
	VPSRLQ       $32, Y13, Y13

// func burst256(cells []uint64, boxes []box, trees []tree, none uint32, keys []Key, out []Verdict)
//
// On the stack are the words of the keys, apart, the cells that they have come to
// and their best ranks. Whole vectors are filled up with keys of rank 0, which no
// tree is asked for.
TEXT ·burst256(SB), 0, $896-128
	MOVQ cells_base+0(FP), DI
	MOVQ boxes_base+24(FP), SI
	MOVQ trees_base+48(FP), R11
	MOVQ trees_len+56(FP), R12
	MOVQ keys_base+80(FP), R8
	MOVQ keys_len+88(FP), R9
	CONSTANTS
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

tree:
	// The keys whose best rank is over the tree's lowest start at the root, the
	// others at an empty leaf.
	VPBROADCASTQ (R11), Y6
	VPBROADCASTD 8(R11), Y7
	VPCMPEQD Y8, Y8, Y8
	VPSLLQ $63, Y8, Y8
	XORL CX, CX
	XORL AX, AX

start:
	VPMAXUD best-896(SP)(CX*4), Y7, Y0
	VPCMPEQD Y7, Y0, Y0
	VPMOVSXDQ X0, Y1
	VEXTRACTI128 $1, Y0, X2
	VPMOVSXDQ X2, Y2
	VBLENDVPD Y1, Y8, Y6, Y1
	VBLENDVPD Y2, Y8, Y6, Y2
	VMOVDQU Y1, at-768(SP)(CX*8)
	VMOVDQU Y2, at-736(SP)(CX*8)
	VMOVMSKPS Y0, DX
	XORL $0xFF, DX
	SHLL CX, DX
	ORL DX, AX
	ADDQ $8, CX
	CMPQ CX, R9
	JLT start
	TESTL AX, AX
	JZ next

level:
	XORL R10, R10
	XORL CX, CX

group:
	VMOVDQU at-768(SP)(CX*8), Y0
	VMOVMSKPD Y0, DX
	CMPL DX, $15
	JEQ rest
	INCL R10
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
	VMOVQ X2, BX
	VPEXTRQ $1, X2, DX
	VEXTRACTI128 $1, Y2, X3
	VMOVQ X3, R13
	VPEXTRQ $1, X3, R14
	VMOVQ (DI)(BX*8), X4
	VPINSRQ $1, (DI)(DX*8), X4, X4
	VMOVQ (DI)(R13*8), X5
	VPINSRQ $1, (DI)(R14*8), X5, X5
	VINSERTI128 $1, X5, Y4, Y4
	VBLENDVPD Y0, Y0, Y4, Y0
	VMOVDQU Y0, at-768(SP)(CX*8)

rest:
	ADDQ $4, CX
	CMPQ CX, R9
	JLT group
	TESTL R10, R10
	JNZ level

	CMPQ boxes_len+32(FP), $FAR
	JLT leaf
	MOVL AX, DX

fetch:
	TZCNTL DX, BX
	MOVQ at-768(SP)(BX*8), CX
	ANDL $0x7FFFFF, CX
	SHLQ $5, CX
	PREFETCHT0 (SI)(CX*1)
	PREFETCHT0 64(SI)(CX*1)
	BLSRL DX, DX
	JNZ fetch

leaf:
	TZCNTL AX, BX
	MOVQ BX, CX
	SHLQ $4, CX
	KEY((R8)(CX*1))
	MOVQ at-768(SP)(BX*8), BX
	LEAF(turn, more, pick)
	TZCNTL AX, BX
	MOVL best-896(SP)(BX*4), CX
	CMPL R10, CX
	CMOVLCS R10, CX
	MOVL CX, best-896(SP)(BX*4)
	BLSRL AX, AX
	JNZ leaf

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
	KEY((R8))
	MOVQ (R8), AX
	MOVQ 8(R8), R8

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
