#include "textflag.h"
#include "kernel_amd64.h"

// The walk of docs/CLASSIFIER.md in AVX2, four keys to a vector. Y12 has all bits of
// a lane but word 7, which is the rank's half in a box and 0 in a key, Y13 the
// lower halves of qwords, Y14 the value 63 in each.

DATA fields<>+0(SB)/8, $-1
DATA fields<>+8(SB)/8, $0x0000FFFFFFFFFFFF
DATA fields<>+16(SB)/8, $-1
DATA fields<>+24(SB)/8, $0x0000FFFFFFFFFFFF
GLOBL fields<>(SB), RODATA|NOPTR, $32

// MATCH2 compares the key in both lanes of Y15 with two boxes: all bits of the
// lower half of lane i of in are set if both addresses of box i are inside, those of
// the upper half if ports and protocol are. A field is inside when its distance
// from the low end is the lesser of itself and the span.
#define MATCH2(box0, box1, in) \
	VMOVDQU    box0(R13), Y0;     \
	VMOVDQU    box1(R13), Y1;     \
	VPERM2I128 $0x20, Y1, Y0, Y2; \
	VPERM2I128 $0x31, Y1, Y0, Y3; \
	VPSUBD     Y2, Y15, Y4;       \
	VPSUBW     Y2, Y15, Y5;       \
	VPBLENDD   $0xCC, Y5, Y4, Y4; \
	VPAND      Y12, Y4, Y4;       \
	VPMINUD    Y3, Y4, Y5;        \
	VPMINUW    Y3, Y4, Y6;        \
	VPBLENDD   $0xCC, Y6, Y5, Y5; \
	VPCMPEQQ   Y5, Y4, in

// MATCH4 compares the key with the four boxes from R13 on: bit 2j of DX is set where
// it is inside box j. Packing puts the second pair behind the first in each lane.
#define MATCH4 \
	MATCH2(0, 64, Y7);     \
	MATCH2(32, 96, Y8);    \
	VPACKSSDW Y8, Y7, Y7;  \
	VMOVMSKPS Y7, DX;      \
	MOVL DX, CX;           \
	SHRL $1, CX;           \
	ANDL CX, DX;           \
	ANDL $0x55, DX

#define CONSTANTS \
	VMOVDQU    fields<>(SB), Y12;  \
	VPCMPEQD   Y13, Y13, Y13;      \
	VPSRLQ     $58, Y13, Y14;      \
	VPSRLQ     $32, Y13, Y13

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
	VPCMPEQD Y5, Y5, Y5
	VPXOR Y0, Y5, Y5
	VPGATHERQQ Y5, (DI)(Y2*8), Y0
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
	VBROADCASTI128 (R8)(CX*1), Y15
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
	VBROADCASTI128 (R8), Y15

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
