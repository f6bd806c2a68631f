// What the walks in AVX-512 and in AVX2 share. In all functions:
//
//	DI  cells        R8   keys, or the key
//	SI  boxes        R9   out (burst) or the best rank (one)
//	R11 the tree     R12  trees left

// FAR is how many boxes are so far from the core that a burst asks for those of
// all its leaves before it compares any: 128 KiB. Nearer ones it would only delay.
#define FAR 4096

// GUARDS are the guards of word 1 of a key, GUARD the one that word 0 does not have.
#define GUARD  0x0400000000000000
#define GUARDS 0x0402000100000000

// LEAF puts into R10 the rank that the leaf BX has for the key that MATCH4
// compares: of the first of its boxes that the key is inside, or its fallback. It
// goes through four boxes a turn; those behind the last are compared, and not
// counted. Whether one of the last four holds the key is no branch: nobody could
// foretell it. MORE stands elsewhere in the function, for leaves of more than
// four. Uses BX, CX, DX, R13, R14, R15.
#define LEAF(turn, more, pick) \
	RORXQ   $23, BX, R14;  \
	ANDL    $0xFFFFF, R14; \
	RORXQ   $43, BX, R10;  \
	ANDL    $0xFFFFF, R10; \
	ANDL    $0x7FFFFF, BX; \
	SHLQ    $5, BX;        \
	LEAQ    (SI)(BX*1), R13; \
turn: \
	MATCH4;                \
	CMPL    R14, $3;       \
	JGT     more;          \
	INCL    R14;           \
	BZHIL   R14, DX, DX;   \
pick: \
	LEAL    0x10(DX), CX;  \
	TZCNTL  CX, CX;        \
	SHLL    $5, CX;        \
	MOVWLZX 22(R13)(CX*1), R15; \
	MOVWLZX 6(R13)(CX*1), CX;   \
	SHRL    $2, R15;       \
	SHRL    $2, CX;        \
	SHLL    $14, R15;      \
	ORL     CX, R15;       \
	TESTL   DX, DX;        \
	CMOVLNE R15, R10

#define MORE(turn, more, pick) \
more: \
	TESTL DX, DX;    \
	JNZ   pick;      \
	ADDQ  $128, R13; \
	SUBL  $4, R14;   \
	JMP   turn

// NEXT goes from the table BX to the next cell, for the key with words AX and R8,
// and tells by its sign whether that is a leaf. Both words are shifted before it
// is known which is wanted: the way to the next cell is all that counts. Uses
// CX, DX, R13.
#define NEXT \
	RORXQ   $32, BX, CX;  \
	SHRXQ   CX, AX, DX;   \
	SHRXQ   CX, R8, R13;  \
	BTQ     $38, BX;      \
	CMOVQCS R13, DX;      \
	MOVQ    BX, CX;       \
	SHRQ    $40, CX;      \
	ANDL    CX, DX;       \
	ADDL    BX, DX;       \
	MOVQ    (DI)(DX*8), BX; \
	TESTQ   BX, BX
